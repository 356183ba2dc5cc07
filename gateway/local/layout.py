"""
The files of one local run and who may be in its directory.

Decides names under `.run/` (design, section 4), that only their owner can read them, and that one run at a time holds
them. Does not know what is written into them.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.local.errors import LocalRunError
from gateway.local.processes import is_alive

REPOSITORY = Path(__file__).resolve().parents[2]
_LAST_RUN_STOPS_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """`root` is absolute; everything a run writes lies below it."""

    root: Path

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def pids(self) -> Path:
        return self.root / "pids"

    @property
    def config(self) -> Path:
        return self.root / "tailor.yaml"

    @property
    def env(self) -> Path:
        return self.root / "env"

    @property
    def ready(self) -> Path:
        """Where and what the run is, without its keys; there while it answers."""
        return self.root / "ready.json"

    def store(self, base: str) -> Path:
        """The adapter store of one base: profiles of another would have nothing to run on."""
        return self.root / "store" / base

    def valkey(self, base: str) -> Path:
        return self.root / "valkey" / base

    def engine(self, base: str) -> Path:
        return self.root / "engines" / base

    def log(self, service: str) -> Path:
        return self.logs / f"{service}.log"

    def create(self) -> None:
        """
        Raises:
            LocalRunError: the folder cannot be written.
        """
        try:
            for folder in (self.root, self.logs, self.pids):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.root.chmod(0o700)
        except OSError as error:
            raise LocalRunError(
                f"the run directory {self.root} cannot be written ({error.strerror}); name another with --run-dir"
            ) from error

    @contextmanager
    def held(self) -> Iterator[int]:
        """
        Hold the directory; the descriptor keeps holding it in whoever inherits it.

        Raises:
            LocalRunError: another run holds it; the text says which.
        """
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + _LAST_RUN_STOPS_WITHIN_S
            while not _locked(descriptor):
                pid = int(os.pread(descriptor, 32, 0) or 0)
                # Its supervisor is gone and its reaper still cleans up: that ends soon.
                if (pid and is_alive(pid)) or time.monotonic() > deadline:
                    raise LocalRunError(
                        f"tailor is already running in {self.root} (pid {pid}): stop it with Ctrl-C there or"
                        f" `kill {pid}`, or run a second one beside it with --run-dir DIR --port-offset 1000"
                    )
                time.sleep(0.1)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield descriptor
        finally:
            os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_private(path: Path, text: str) -> None:
    """Write a file that holds secrets: whole or not at all, and never readable by others in between."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    partial.replace(path)
