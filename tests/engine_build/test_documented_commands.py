"""
The commands on the reference engine's page, run as they stand; the second on a smaller model and for one round.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_pages_commands_run() -> None:
    [block, *_] = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "reference-engine.md").read_text(), re.DOTALL)
    build, speed = block.strip().splitlines()
    for command, more in ((build, []), (speed, ["--checkpoint", "build/tiny", "--streams", "2", "--rounds", "1"])):
        program, *arguments = shlex.split(command)
        assert program == ".venv/bin/python"
        done = subprocess.run(
            [sys.executable, *arguments, *more], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
