"""
Writes constraints.txt: the version in `.venv` of everything that pyproject.toml asks for, directly or not.

Decides what is pinned: the closure of the requirements over the metadata of what is installed, so that a stray package
in the environment is not. Does not decide versions: `pip install` something else first, run the tests, then this.
"""

import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
BUILD_TOOLS = ("hatchling", "editables")
FILES_ONLY = ("nvidia-pytriton==0.7.0",)
HEADER = """\
# Every distribution of the environment, pinned; made by `make constraints` from a working .venv (docs/dependencies.md).
# torch is named without its build's suffix: the same pin takes the CPU or the CUDA build.
"""


def closure(requirements: list[str]) -> dict[str, str]:
    """Name to version of all that the requirements need; what their markers exclude here is left out."""
    pins: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    queue = [Requirement(text) for text in requirements]
    while queue:
        requirement = queue.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            found = distribution(name)
        except PackageNotFoundError:
            sys.exit(f"{name} is required and not installed in {sys.prefix}: pip install it first")
        pins[name] = found.version.split("+")[0]
        for text in found.requires or ():
            needed = Requirement(text)
            environments = [{"extra": extra} for extra in (*extras, "")]
            if needed.marker is None or any(needed.marker.evaluate(environment) for environment in environments):
                queue.append(needed)
    return pins


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    pins = closure([*project["dependencies"], *extras["local"], *extras["dev"], *BUILD_TOOLS])
    lines = sorted(f"{name}=={version}" for name, version in pins.items())
    files = "\n".join(FILES_ONLY)
    (ROOT / "constraints.txt").write_text(
        f"{HEADER}\n# Only files of these are used: installed with --no-deps outside .venv.\n{files}\n\n"
        + "\n".join(lines)
        + "\n"
    )
    print(f"constraints.txt: {len(lines)} distributions pinned")


if __name__ == "__main__":
    main()
