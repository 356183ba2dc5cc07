"""docs/dependencies.md names every direct dependency, and the version that is pinned."""

import re
import tomllib

from tests.unit.local.scripts import SCRIPTS, load_script

ROW = re.compile(r"^\| ([a-z0-9-]+) \| ([0-9][^ ]*) \| (.+) \|$", re.MULTILINE)


def test_the_page_and_the_pins_agree() -> None:
    bootstrap = load_script("bootstrap")
    project = tomllib.loads((SCRIPTS.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [
        *project["dependencies"],
        *extras["local"],
        *extras["dev"],
        *bootstrap.BUILD_TOOLS,
        bootstrap.TRITON_PACKAGE,
    ]
    pins = bootstrap.pins()

    rows = {name: version for name, version, _ in ROW.findall((SCRIPTS.parent / "docs/dependencies.md").read_text())}

    assert rows == {
        name: pins[name] for name in (bootstrap.normalised(re.split(r"[<>=;\[ ]", text)[0]) for text in asked)
    }
