"""
The README's commands for an engineer with an adapter, run as they stand.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from build.scoring.demo import BASES
from tests.live.stack import Stack

README = Path(__file__).resolve().parents[2] / "README.md"
ADAPTERS = BASES["tiny"].artefacts / "adapters"


def test_the_readmes_adapter_commands_work(stack: Stack, tmp_path: Path) -> None:
    [block] = [text for text in re.findall(r"```sh\n(.*?)```", README.read_text(), re.DOTALL) if "adapters add" in text]
    add, show, promote, rollback = block.strip().splitlines()
    tool = tmp_path / ".venv" / "bin" / "tailor"
    tool.parent.mkdir(parents=True)
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} -m gateway.cli.main "$@"\n')
    tool.chmod(0o755)

    def run(command: str) -> str:
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=tmp_path,
            env={"TAILOR_ADMIN_URL": stack.admin_url, "TAILOR_ADMIN_KEY": stack.admin_key, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    for number, name in ((1, "tenant-tool-lora"), (2, "slip-lora")):
        shutil.copytree(ADAPTERS / name, tmp_path / "my-peft-dir", dirs_exist_ok=True)
        run(add)
        assert f"version {number}" in run(show)
    run(promote)
    assert "live: 2" in run(show)
    run(rollback)
    assert "live: 1" in run(show)
