"""
The local run's Triton: the server inside the nvidia-pytriton wheel, with its Python backend on this environment.

Decides its flags and what its stub needs to find this Python (design, section 5). Does not know the model.
"""

import contextlib
import ctypes
import os
import shutil
import sys
import sysconfig
from pathlib import Path

from gateway.local.errors import LocalRunError
from gateway.local.layout import REPOSITORY
from gateway.local.ports import HOST, Ports

SERVER = REPOSITORY / ".tools" / "pytriton" / "pytriton" / "tritonserver"
MODEL = "tensorrt_llm"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lies on Linux
_POOL_BYTES = 256 * 1024 * 1024  # with the default of 1 MiB Triton died once at 256 busy streams
_SMALLEST_POOL_BYTES = 16 * 1024 * 1024
# A cancelled stream can make Triton keep its request, and with it the model, for ever: unloading never ends then, and
# waiting for it is in vain. Nothing is under way when it is asked to stop; what it leaves is removed.
_FINISHES_WITHIN_S = 3


def command(model_repository: Path, ports: Ports, *, pool_bytes: int) -> list[str]:
    """What starts it: one model repository, three ports on the loopback address, nothing loaded or unloaded later."""
    return [
        str(SERVER / "bin" / "tritonserver"),
        f"--model-repository={model_repository}",
        f"--backend-directory={SERVER / 'backends'}",
        f"--http-address={HOST}",
        f"--http-port={ports.triton_http}",
        f"--grpc-address={HOST}",
        f"--grpc-port={ports.triton_grpc}",
        f"--metrics-address={HOST}",
        f"--metrics-port={ports.triton_metrics}",
        # The engine's configuration is complete; completing it would start its interpreter twice.
        "--disable-auto-complete-config",
        f"--exit-timeout-secs={_FINISHES_WITHIN_S}",
        f"--backend-config=python,shm-default-byte-size={pool_bytes}",
        f"--backend-config=python,shm-region-prefix-name={shared_memory_prefix(ports)}",
    ]


def environment(base: dict[str, str]) -> dict[str, str]:
    """
    What its stub needs: the folder of libpython, and the packages of this environment.

    Raises:
        LocalRunError: this Python's shared library is not to be found.
    """
    libraries = [str(libpython_folder()), *filter(None, [base.get("LD_LIBRARY_PATH")])]
    return {name: value for name, value in base.items() if name != "PYTHONHOME"} | {
        "LD_LIBRARY_PATH": ":".join(libraries),
        "PYTHONPATH": sysconfig.get_path("purelib"),
        # The stub looks for the interpreter's own library through `python3` on PATH.
        "PATH": f"{Path(sys.executable).parent}:{base.get('PATH', os.defpath)}",
    }


def libpython_name() -> str:
    return f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"


def libpython_folder() -> Path:
    """
    Where this Python's shared library lies.

    Raises:
        LocalRunError: nowhere; the text says what to install on Debian.
    """
    name = libpython_name()
    for folder in (sysconfig.get_config_var("LIBDIR"), f"{sys.base_prefix}/lib"):
        if folder and (Path(folder) / name).exists():
            return Path(folder)
    with contextlib.suppress(OSError):
        ctypes.CDLL(name)
        maps = Path("/proc/self/maps").read_text().split()
        return next(Path(part).parent for part in maps if part.startswith("/") and part.endswith(name))
    version = name.removeprefix("libpython").removesuffix(".so.1.0")
    raise LocalRunError(
        f"{sys.executable} comes without {name}, which Triton's Python backend loads; on Debian and Ubuntu install it"
        f" with: sudo apt-get install libpython{version}"
    )


def install_stub() -> None:
    """
    Put the stub of this Python's version where the backend looks for it.

    Raises:
        LocalRunError: Triton's files are absent, or have no stub for this version.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    source = SERVER / "python_backend_stubs" / version / "triton_python_backend_stub"
    target = SERVER / "backends" / "python" / source.name
    if not source.exists():
        raise LocalRunError(f"Triton's files are not in {SERVER} or have no stub for Python {version}; run `make env`")
    if (
        target.exists()
        and target.stat().st_size == source.stat().st_size
        and target.read_bytes() == source.read_bytes()
    ):
        return
    partial = target.with_name(f"{target.name}.{os.getpid()}")  # another run may be starting the old one right now
    shutil.copy2(source, partial)
    partial.replace(target)


def shared_memory_prefix(ports: Ports) -> str:
    """What this run's shared memory is called, so that a killed Triton's can be told from others'."""
    return f"tailor-{ports.triton_grpc}-"


def remove_shared_memory(prefix: str) -> None:
    """Give back what a Triton left that was killed; no process uses it any more."""
    for left in _SHARED_MEMORY.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            left.unlink()


def pool_bytes(free: int | None = None) -> int:
    """
    The size of the backend's shared memory: what heavy traffic needs, or less where /dev/shm is small (containers).

    Raises:
        LocalRunError: too little is free.
    """
    if free is None:
        status = os.statvfs(_SHARED_MEMORY)
        free = status.f_bavail * status.f_frsize
    usable = min(_POOL_BYTES, free // 2)
    if usable < _SMALLEST_POOL_BYTES:
        raise LocalRunError(
            f"{_SHARED_MEMORY} has {free // 2**20} MiB free and Triton needs {2 * _SMALLEST_POOL_BYTES // 2**20};"
            " in a container start it with --shm-size=1g"
        )
    return usable
