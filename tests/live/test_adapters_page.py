"""docs/adapters.md, run as it stands: every command in order, in one shell, and every line of output it promises."""

import re
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.adapters.refusal import RefusalCode
from gateway.local.layout import REPOSITORY
from tests.live.stack import Stack

pytestmark = pytest.mark.live

PAGE = REPOSITORY / "docs" / "adapters.md"
_BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> list[tuple[str, list[str]]]:
    """Commands, and the lines that the next `text` block says they print; on a stack that was used, under new names."""
    mine = secrets.token_hex(4)
    page = re.sub(r"\b(planner|slips|by-hand)\b", rf"\1-{mine}", PAGE.read_text())
    found: list[tuple[str, list[str]]] = []
    for kind, content in _BLOCK.findall(page):
        if kind == "sh":
            found.append((content, []))
        else:
            found[-1][1].extend(content.splitlines())
    return found


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl, which the page uses")
def test_every_command_of_the_page_does_what_it_says(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / ".run").symlink_to(stack.directory)
    (tmp_path / "build").symlink_to(REPOSITORY / "build")
    tailor = tmp_path / ".venv" / "bin" / "tailor"
    tailor.parent.mkdir(parents=True)
    tailor.write_text(f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {sys.executable} -m gateway.cli.main "$@"\n')
    tailor.chmod(0o755)
    pages = blocks()
    mark = "-- end of block --"
    script = "set -euo pipefail\nexport COLUMNS=160\n" + "".join(f"{code}\necho\necho '{mark}'\n" for code, _ in pages)
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    outputs = done.stdout.split(mark)
    for (code, promised), output in zip(pages, outputs, strict=False):
        said = " ".join(output.split())
        for line in promised:
            assert line in said, f"{code}\nprinted\n{output}"
    assert len(outputs) == len(pages) + 1


def test_every_reason_of_a_refusal_is_on_the_page() -> None:
    text = PAGE.read_text()
    assert [code.value for code in RefusalCode if f"`{code.value}`" not in text] == []
