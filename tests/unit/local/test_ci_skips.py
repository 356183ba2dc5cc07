"""In CI a test that is skipped for want of a tool is a failure. Source: tests/conftest.py."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.local.scripts import SCRIPTS

SUITE = """
import pytest

def test_that_runs(): pass

def test_without_its_tool(): pytest.skip("needs nginx")

@pytest.mark.gpu
def test_that_needs_a_gpu(): pytest.skip("needs a GPU")

@pytest.mark.xfail(strict=True)
def test_that_is_known_to_fail(): assert False
"""


def outcome(folder: Path, suite: str, **environment: str) -> tuple[int, str]:
    """Exit status and closing lines of pytest on a suite of its own under the real conftest."""
    shutil.copy(SCRIPTS.parent / "tests" / "conftest.py", folder)
    (folder / "test_suite.py").write_text(suite)
    inherited = {name: value for name, value in os.environ.items() if name != "TAILOR_CI"}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rf", "-p", "no:cacheprovider", "-W", "ignore", str(folder)],
        cwd=folder,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout


def test_at_a_desk_a_missing_tool_is_a_skip(tmp_path: Path) -> None:
    status, said = outcome(tmp_path, SUITE)

    assert status == 0
    assert "1 passed, 2 skipped, 1 xfailed" in said


def test_in_ci_it_is_a_failure_with_the_reason_and_a_gpu_is_not_asked_for(tmp_path: Path) -> None:
    status, said = outcome(tmp_path, SUITE, TAILOR_CI="1")

    assert status == 1
    assert "1 failed, 1 passed, 1 skipped, 1 xfailed" in said
    assert "skipped in CI, where every tool is installed: Skipped: needs nginx" in said


@pytest.mark.parametrize("ci", [False, True])
def test_a_module_that_skips_itself_counts_too(tmp_path: Path, ci: bool) -> None:
    suite = "import pytest\npytest.skip('needs node', allow_module_level=True)\n"

    status, said = outcome(tmp_path, suite, **({"TAILOR_CI": "1"} if ci else {}))

    assert ("needs node" in said) == ci
    assert status == (2 if ci else 5)
