"""
Says whether the Python that runs this file can carry Tailor.

Prints one line, a rank and a text parted by a tab: `2` and the interpreter's path where it can; `1` and one sentence
that says what to install where it nearly can; `0` and what it is where it cannot at all. Does not know which candidates
there are (scripts/find-python).
"""

# Any Python from 2.7 on has to be able to read this file, to be told that it is too old.
# ruff: noqa: PLC0415, PLR0911, UP024, UP030, UP032

import os
import platform
import sys

VERSIONS = ((3, 11), (3, 12))
GLIBC = (2, 34)  # what the libraries in nvidia-pytriton 0.7.0 ask for (objdump -T)


def glibc():
    """The C library's (major, minor), or None where it is another one."""
    try:
        name, version = os.confstr("CS_GNU_LIBC_VERSION").split()
        return tuple(int(part) for part in version.split(".")[:2]) if name == "glibc" else None
    except (ValueError, OSError, AttributeError):
        return None


def has_libpython(version):
    """Whether Triton's stub will find this Python's shared library: beside it, or where the system's loader looks."""
    import ctypes
    import sysconfig

    name = "libpython{0}.so.1.0".format(version)
    for folder in (sysconfig.get_config_var("LIBDIR"), os.path.join(sys.base_prefix, "lib")):
        if folder and os.path.exists(os.path.join(folder, name)):
            return True
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def install_line(version, missing):
    """The command that brings what is missing, in the words of this system's own package manager."""
    family = ""
    try:
        with open("/etc/os-release") as lines:
            family = " ".join(line for line in lines if line.startswith(("ID=", "ID_LIKE=")))
    except (IOError, OSError):
        pass
    if "debian" in family or "ubuntu" in family:
        return "sudo apt-get install libpython{0} python{0}-venv make".format(version)
    if "fedora" in family or "rhel" in family:
        return "sudo dnf install python{0} python{0}-libs make".format(version)
    uv = "uv (https://docs.astral.sh/uv/), which brings a Python of its own"
    return "your package manager's {0} for Python {1}, or {2}".format(missing, version, uv)


def verdict():
    """The rank and the text."""
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        return 1, (
            "Tailor's local stack runs on Linux on x86-64 and this is {0} on {1}: Triton's wheel has no other build; "
            "use such a machine or a virtual one".format(platform.system(), platform.machine())
        )
    version = "{0}.{1}".format(*sys.version_info)
    if sys.version_info[:2] not in VERSIONS:
        return 0, version
    if sys.maxsize < 2**32:
        return 0, "a 32-bit build"
    found = glibc()
    if found is None or found < GLIBC:
        return (
            1,
            "Triton needs glibc {0} or newer and this system has {1}: use Debian 12, Ubuntu 22.04 or newer".format(
                ".".join(map(str, GLIBC)), ".".join(map(str, found)) if found else "another C library"
            ),
        )
    lacking = "{0} comes without {1}; install it with: {2}"
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return 1, lacking.format(sys.executable, "its venv module", install_line(version, "venv module"))
    if not has_libpython(version):
        what = "libpython{0}.so, which Triton's Python backend loads".format(version)
        return 1, lacking.format(sys.executable, what, install_line(version, "shared library (libpython)"))
    # In a virtual environment this is the interpreter it was made from, which outlives it.
    return 2, getattr(sys, "_base_executable", None) or sys.executable


if __name__ == "__main__":
    print("{0}\t{1}".format(*verdict()))
