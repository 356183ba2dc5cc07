"""The files of a run: private, and one run's at a time."""

import os
import stat
from pathlib import Path

import pytest

from gateway.local.errors import LocalRunError
from gateway.local.layout import RunDirectory, write_private


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_folder_is_its_owners_alone(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "deep" / ".run")

    run.create()

    assert mode(run.root) == 0o700


def test_a_folder_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / ".run")
    run.root.mkdir(mode=0o755)

    run.create()

    assert mode(run.root) == 0o700


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(LocalRunError, match=r"cannot be written .*name another with --run-dir"):
        RunDirectory(tmp_path / "file" / ".run").create()


def test_a_held_directory_is_refused_with_the_holders_pid(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with (
        run.held(),
        pytest.raises(
            LocalRunError, match=rf"already running in {tmp_path} \(pid {os.getpid()}\): stop it with Ctrl-C"
        ),
        run.held(),
    ):
        pass


def test_a_directory_can_be_held_again_when_let_go(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with run.held():
        pass
    with run.held():
        assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_a_secret_file_is_never_readable_by_others(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text("old")
    path.chmod(0o644)

    write_private(path, "new")

    assert path.read_text() == "new"
    assert mode(path) == 0o600
    assert list(tmp_path.iterdir()) == [path]
