"""
Makes `.venv` and `.tools` what pyproject.toml and constraints.txt say, and does nothing where they already are.

Runs under any Python 3.11 or 3.12 with nothing but its standard library (scripts/find-python picks it). Decides where
torch comes from, in which order things are installed, and when an environment is broken enough to be made again. Does
not know what the packages are for.

    TORCH                 `cpu` (default) or a suffix of PyTorch's own indexes such as `cu130`
    TAILOR_TORCH_INDEX    URL of a package index to take torch from; `pip` for whatever pip is configured with
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
TRITON = ROOT / ".tools" / "pytriton"
CONSTRAINTS = ROOT / "constraints.txt"
LOCK = ROOT / ".cache" / "bootstrap.lock"
LOG = ROOT / ".cache" / "bootstrap.log"
PYTORCH_INDEXES = "https://download.pytorch.org/whl"
INDEX_ANSWERS_WITHIN_S = 3.0
TRITON_PACKAGE = "nvidia-pytriton"
# Needed to install the project itself without a second, unpinned environment for its build.
BUILD_TOOLS = ("hatchling", "editables")


class BootstrapError(Exception):
    """The environment cannot be made; the text says why and what to do next."""


def say(text: str) -> None:
    print(f"tailor: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """Two makes at once would both write into one environment: the second waits, then finds the work done."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another make is preparing this environment; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def pins() -> dict[str, str]:
    """Name to version of every pinned distribution, names normalised as indexes do."""
    lines = (line.split("#", 1)[0].strip() for line in CONSTRAINTS.read_text().splitlines())
    return {normalised(name): version for name, version in (line.split("==", 1) for line in lines if line)}


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def fingerprint(*parts: str) -> str:
    """What a stamp holds: equal inputs need no second installation."""
    files = (ROOT / "pyproject.toml", CONSTRAINTS, Path(__file__))
    digest = hashlib.sha256()
    for part in (*parts, *(file.read_text() for file in files)):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def installed() -> dict[str, str]:
    """What the environment holds, read from the names of its metadata folders, which is quick."""
    found = {}
    for record in VENV.glob("lib/python3.*/site-packages/*.dist-info/RECORD"):
        name, _, version = record.parent.name.removesuffix(".dist-info").partition("-")
        found[normalised(name)] = version
    return found


def missing() -> list[str]:
    """Pinned distributions that the environment lacks or holds in another version."""
    found = installed()
    wanted = {name: version for name, version in pins().items() if name != TRITON_PACKAGE}
    return [name for name, version in wanted.items() if found.get(name, "").split("+")[0] != version]


def venv_works() -> bool:
    """Whether the environment's interpreter runs, is of the Python that runs this, and has pip."""
    code = "import pip, sys; print(sys.version, sys.base_prefix)"
    try:
        answer = subprocess.run([VENV_PYTHON, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    return answer.stdout.strip() == f"{sys.version} {sys.base_prefix}".strip()


class Phases:
    """One line per phase with what it took; on a terminal the line lives while the phase runs."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._number = 0
        self._live = sys.stderr.isatty()
        self._title = ""
        self._began = 0.0

    @contextlib.contextmanager
    def phase(self, title: str, folder: Path) -> Iterator[None]:
        self._number += 1
        self._title = f"tailor: [{self._number}/{self._total}] {title}"
        self._began = time.monotonic()
        if not self._live:
            print(f"{self._title} ...", file=sys.stderr, flush=True)
        yield
        seconds = time.monotonic() - self._began
        clear = "\r\033[K" if self._live else ""
        size = f"{size_bytes(folder) / 1e6:,.0f} MB in {folder.relative_to(ROOT)}"
        print(f"{clear}{self._title}: {seconds:.0f} s, {size}", file=sys.stderr, flush=True)

    def tell(self, text: str) -> None:
        """What is being done right now; shown on a terminal only."""
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            line = f"{self._title}: {time.monotonic() - self._began:.0f} s  {text}"
            print(f"\r\033[K{line[:width]}", end="", file=sys.stderr, flush=True)


def size_bytes(folder: Path) -> int:
    return sum(os.lstat(Path(top) / name).st_size for top, _, names in os.walk(folder) for name in names)


def pip(phases: Phases, python: Path, *arguments: str) -> None:
    """
    Run pip, its output in the log, its current file on the terminal.

    Raises:
        BootstrapError: pip failed; the text ends with what it said last.
    """
    # A user's PIP_USER or PIP_REQUIRE_VIRTUALENV are meant for other environments than this one.
    settings = {"PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PIP_PROGRESS_BAR": "off"}
    environment = {name: value for name, value in os.environ.items() if name != "PIP_REQUIRE_VIRTUALENV"} | settings
    command = [str(python), "-I", "-m", "pip", "install", *arguments]
    last: list[str] = []
    with (
        LOG.open("a") as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=ROOT
        ) as process,
    ):
        assert process.stdout is not None
        print("$ pip", *command[4:], file=log)
        for line in process.stdout:
            log.write(line)
            log.flush()
            last = [*last[-7:], line.rstrip()]
            if match := re.match(r"\s*(Collecting|Downloading|Using cached|Installing|Building)\s.*", line):
                phases.tell(re.sub(r"\S*/", "", match[0].strip()))
    if process.returncode:
        said = "\n        ".join(last)
        raise BootstrapError(
            f"pip could not install (exit {process.returncode}; all it said is in {LOG.relative_to(ROOT)}):"
            f"\n        {said}\ntailor: check network and disk, then run the same command again: it goes on from here"
        )


def torch_source() -> tuple[list[str], str]:
    """pip's arguments that choose where torch comes from, and that choice in words."""
    index = os.environ.get("TAILOR_TORCH_INDEX", "")
    if index == "pip":
        return [], "pip's own index (TAILOR_TORCH_INDEX=pip)"
    if index:
        return ["--index-url", index], "the index in TAILOR_TORCH_INDEX"
    flavour = os.environ.get("TORCH") or "cpu"
    url = f"{PYTORCH_INDEXES}/{flavour}"
    if flavour == "cpu" and not answers(f"{url}/torch/"):
        say(
            f"PyTorch's CPU index did not answer within {INDEX_ANSWERS_WITHIN_S:.0f} s: taking torch from where pip is"
            " set up to look, which may bring several GB of CUDA; TAILOR_TORCH_INDEX=<url> chooses another index"
        )
        return [], "pip's own index"
    return ["--index-url", url], f"PyTorch's {flavour} index"


def answers(url: str) -> bool:
    """Whether a server answers that address soon; whatever it answers but an error."""
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - a fixed https address
    try:
        with urllib.request.urlopen(request, timeout=INDEX_ANSWERS_WITHIN_S):  # noqa: S310
            return True
    except OSError:
        return False


def make_venv(phases: Phases) -> None:
    """
    Raises:
        BootstrapError: this Python cannot make environments.
    """
    made = subprocess.run(
        [sys.executable, "-I", "-m", "venv", "--clear", VENV], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise BootstrapError(f"{sys.executable} cannot make {VENV.name}: {(made.stdout + made.stderr).strip()}")


def prepare_environment() -> None:
    """Bring `.venv` to what is pinned; a half-made one goes on where it stopped, a broken one is made again."""
    stamp = VENV / "tailor-stamp"
    source = os.environ.get("TAILOR_TORCH_INDEX", "") + os.environ.get("TORCH", "")
    wanted = fingerprint(sys.version, source)
    works = venv_works()
    if works and stamp.is_file() and stamp.read_text() == wanted and not missing():
        return
    versions = pins()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    requirements = [*project["dependencies"], *extras["local"], *extras["dev"], *BUILD_TOOLS]
    say(f"preparing with Python {sys.version.split()[0]} ({sys.executable})")
    stamp.unlink(missing_ok=True)
    phases = Phases(4)
    with phases.phase("environment" if works else "new environment", VENV):
        if not works:
            if VENV.exists():
                phases.tell(f"{VENV.name} is broken or of another Python; making it again")
            make_venv(phases)
    arguments, words = torch_source()
    with phases.phase(f"torch {versions['torch']} from {words}", VENV):
        # Alone and first: its index serves it, pip's serves everything it needs, at our pins.
        held = installed().get("torch", "")
        other = ["--force-reinstall"] if source and held.split("+")[0] == versions["torch"] else []
        pip(phases, VENV_PYTHON, "--no-deps", *other, *arguments, f"torch=={versions['torch']}")
    with phases.phase(f"{len(versions) - 2} other pinned packages", VENV):
        pip(phases, VENV_PYTHON, "--constraint", str(CONSTRAINTS), *requirements)
    with phases.phase("Tailor itself", VENV):
        pip(phases, VENV_PYTHON, "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    if lacking := missing():
        raise BootstrapError(
            f"constraints.txt pins what nothing asked for: {', '.join(lacking)}; run `make constraints` and commit it"
        )
    stamp.write_text(wanted)


def prepare_triton() -> None:
    """Triton's files in a folder of their own: their package asks for much that is not needed here."""
    version = pins()[TRITON_PACKAGE]
    stamp = TRITON / "tailor-stamp"
    server = TRITON / "pytriton" / "tritonserver" / "bin" / "tritonserver"
    if server.is_file() and stamp.is_file() and stamp.read_text() == version:
        return
    partial = TRITON.with_name("pytriton.partial")
    phases = Phases(1)
    with phases.phase(f"Triton ({TRITON_PACKAGE} {version})", TRITON):
        shutil.rmtree(partial, ignore_errors=True)
        pip(phases, VENV_PYTHON, "--no-deps", "--target", str(partial), f"{TRITON_PACKAGE}=={version}")
        (partial / stamp.name).write_text(version)
        shutil.rmtree(TRITON, ignore_errors=True)
        partial.rename(TRITON)


def main() -> int:
    try:
        with only_one():
            LOG.write_text("")
            prepare_environment()
            prepare_triton()
    except BootstrapError as error:
        print(file=sys.stderr)
        say(str(error))
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        say("stopped; the same command goes on from here")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
