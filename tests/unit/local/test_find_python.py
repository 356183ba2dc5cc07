"""Which Python `make` takes, and what it says when none will do. Source: scripts/find-python, scripts/probe.py."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.local.scripts import SCRIPTS, load_script

BROKEN_SHIM = "#!/bin/sh\necho 'pyenv: python: command not found' >&2\nexit 127\n"


def pretends(version: str) -> str:
    """A Python that works and says it is another version: it answers as the probe would under that version."""
    return f"#!/bin/sh\nprintf '0\\t{version}\\n'\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A PATH with nothing on it but what find-python itself calls."""
    dirname = shutil.which("dirname")
    assert dirname
    (tmp_path / "dirname").symlink_to(dirname)
    return tmp_path


def place(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(script)
    (folder / name).chmod(0o755)


def real(folder: Path, name: str) -> None:
    """The Python of these tests under another name; a script, since a link would look for its library beside itself."""
    place(folder, name, f'#!/bin/sh\nexec {sys.executable} "$@"\n')


def find(path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", SCRIPTS / "find-python"],
        env={"PATH": str(path), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_interpreter_behind_the_name_is_printed(path: Path) -> None:
    real(path, "python3")

    found = find(path)

    assert found.returncode == 0
    answer = subprocess.run([found.stdout.strip(), "--version"], capture_output=True, text=True, check=True).stdout
    assert answer.split()[1] == ".".join(map(str, sys.version_info[:3]))


def test_a_name_that_exists_and_does_not_work_is_passed_over(path: Path) -> None:
    place(path, "python3.12", BROKEN_SHIM)
    place(path, "python3.11", BROKEN_SHIM)
    real(path, "python3")

    assert find(path).returncode == 0


def test_a_python_of_a_wrong_version_is_passed_over(path: Path) -> None:
    place(path, "python3", pretends("3.13"))
    real(path, "python3.11")

    assert find(path).returncode == 0


def test_with_no_python_at_all_one_sentence_says_what_to_install(path: Path) -> None:
    found = find(path)

    assert found.returncode == 1
    assert found.stdout == ""
    assert found.stderr.count("\n") == 1
    assert "no Python 3.11 or 3.12 found: install one" in found.stderr


def test_the_sentence_names_the_wrong_version_that_was_found(path: Path) -> None:
    place(path, "python3", pretends("3.13"))

    assert "(python3 is 3.13)" in find(path).stderr


def test_a_python_named_by_hand_is_the_only_candidate(path: Path) -> None:
    real(path, "python3")
    place(path, "mine", pretends("3.10"))

    found = find(path, PYTHON=str(path / "mine"))

    assert found.returncode == 1
    assert "mine is 3.10; Tailor needs Python 3.11 or 3.12" in found.stderr


def test_a_python_named_by_hand_that_is_not_there_is_said_so(path: Path) -> None:
    assert "PYTHON=/nowhere/python will not do: it does not run." in find(path, PYTHON="/nowhere/python").stderr


def test_uv_is_asked_where_nothing_else_will_do(path: Path) -> None:
    real(path, "managed")
    place(path, "uv", f'#!/bin/sh\n[ "$1 $2" = "python find" ] && echo {path}/managed\n')

    assert find(path).returncode == 0


def test_a_missing_libpython_gives_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = load_script("probe")
    monkeypatch.setattr(probe, "has_libpython", lambda version: False)
    monkeypatch.setattr(probe, "install_line", lambda version, missing: f"sudo apt-get install libpython{version}")

    rank, text = probe.verdict()

    version = ".".join(map(str, sys.version_info[:2]))
    assert rank == 1
    assert f"libpython{version}.so" in text
    assert text.endswith(f"sudo apt-get install libpython{version}")


@pytest.mark.skipif(not Path("/etc/debian_version").exists(), reason="asks this system for Debian's own words")
def test_on_debian_the_line_names_debians_packages() -> None:
    line = load_script("probe").install_line("3.11", "shared library")

    assert line == "sudo apt-get install libpython3.11 python3.11-venv make"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        pytest.param((2, 31), "this system has 2.31", id="an older glibc is named"),
        pytest.param(None, "this system has another C library", id="musl is not glibc"),
    ],
)
def test_a_c_library_that_triton_cannot_use_is_said_so(
    monkeypatch: pytest.MonkeyPatch, found: tuple[int, int] | None, said: str
) -> None:
    probe = load_script("probe")
    monkeypatch.setattr(probe, "glibc", lambda: found)

    rank, text = probe.verdict()

    assert rank == 1
    assert said in text


def test_the_oldest_glibc_that_will_do_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = load_script("probe")
    monkeypatch.setattr(probe, "glibc", lambda: (2, 34))

    assert probe.verdict()[0] == 2


def test_another_processor_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")

    rank, text = load_script("probe").verdict()

    assert rank == 1
    assert "on aarch64" in text


def test_the_probe_can_be_read_by_an_old_python() -> None:
    """It has to tell an old Python that it is too old, so nothing in it may be newer than 2.7."""
    newer = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.AsyncFunctionDef, ast.YieldFrom, ast.Starred)

    nodes = list(ast.walk(ast.parse((SCRIPTS / "probe.py").read_text())))

    assert [node for node in nodes if isinstance(node, ast.Starred)] == _starred_arguments(nodes)
    assert not [node for node in nodes if isinstance(node, newer) and not isinstance(node, ast.Starred)]
    assert not [node for node in nodes if isinstance(node, ast.arg) and node.annotation]


def _starred_arguments(nodes: list[ast.AST]) -> list[ast.Starred]:
    """`call(*values)` is as old as Python; `[*values]` is not."""
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    return [argument for call in calls for argument in call.args if isinstance(argument, ast.Starred)]
