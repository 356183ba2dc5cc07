"""
Keeps processes together: all of them run, or none does.

Decides how they are started, watched and stopped: each in a session of its own with a log of its own, stopped in the
reverse order, asked first and made to after `grace_s`; when one ends by itself the others follow; when this process is
killed its reaper ends them. Does not know what they are (gateway/local/stack.py).
"""

import contextlib
import os
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from gateway.local.errors import LocalRunError, ServiceDied, StopAsked
from gateway.local.layout import REPOSITORY
from gateway.local.processes import end_groups, kill, marked, tie_to_parent
from gateway.local.triton import remove_shared_memory

_ASKS_TO_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_KILLED_WITHIN_S = 5.0
_MARK = "TAILOR_LOCAL_RUN"
_TAIL_LINES = 15
_TAIL_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """
    One process of the stack.

    `ready` asks it once, quickly, and answers whether it can be used; it never raises. `environment` is all it gets,
    beside a mark by which it is known whatever descends from it.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    pid_file: Path
    ready: Callable[[], bool]
    ready_within_s: float


@dataclass(slots=True)
class _Running:
    service: Service
    process: subprocess.Popen[bytes]
    pidfd: int = field(init=False)

    def __post_init__(self) -> None:
        self.pidfd = os.pidfd_open(self.process.pid)


class Supervisor:
    """
    A context: what was started inside is stopped when it is left, however that happens.

    Its methods raise StopAsked as soon as a signal asks the run to end and ServiceDied as soon as a service ended.
    """

    def __init__(self, *, grace_s: float, shared_memory_prefix: str, lock: int) -> None:
        self._grace_s = grace_s
        self._prefix = shared_memory_prefix
        self._lock = lock
        self._mark = secrets.token_hex(8)
        self._running: list[_Running] = []
        self._asked: signal.Signals | None = None
        self._impatient = False
        self.made_to_end: list[str] = []
        """Services that did not end when asked, and were killed; known when the context has been left."""

    def __enter__(self) -> Self:
        self._selector = selectors.DefaultSelector()
        self._wakeup, sender = socket.socketpair()
        for end in (self._wakeup, sender):
            end.setblocking(False)
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        self._sender = sender
        signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        # Where a hang-up is ignored on purpose (nohup), it stays so.
        heard = [
            number
            for number in _ASKS_TO_STOP
            if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN or number != signal.SIGHUP
        ]
        self._before = {number: signal.signal(number, self._on_signal) for number in heard}
        self._reaper = subprocess.Popen(
            [
                *(sys.executable, "-m", "gateway.local.reaper"),
                *(str(self._grace_s), self._prefix, f"{_MARK}={self._mark}"),
            ],
            stdin=subprocess.PIPE,
            cwd=REPOSITORY,
            start_new_session=True,
            pass_fds=(self._lock,),  # the directory stays taken until the last process of the run is gone
        )
        return self

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._asked is not None:
            self._impatient = True
        self._asked = signal.Signals(number)

    def start(self, service: Service) -> int:
        """Start a service; its pid. Its log begins anew."""
        self._look()
        with service.log.open("wb") as log:
            process = subprocess.Popen(
                list(service.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**service.environment, _MARK: self._mark},
                cwd=REPOSITORY,
                start_new_session=True,
                preexec_fn=tie_to_parent(),  # noqa: PLW1509 - this process has one thread
            )
        running = _Running(service, process)
        self._running.append(running)
        self._tell_reaper(f"+{process.pid}")
        self._selector.register(running.pidfd, selectors.EVENT_READ)
        service.pid_file.write_text(f"{process.pid}\n")
        return process.pid

    def _tell_reaper(self, line: str) -> None:
        assert self._reaper.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # somebody killed it: the services are still tied to this process
            self._reaper.stdin.write(f"{line}\n".encode())
            self._reaper.stdin.flush()

    def wait_until_ready(self, service: Service) -> None:
        """
        Raises:
            LocalRunError: it did not answer in time; the text ends with where its log is.
        """
        deadline = time.monotonic() + service.ready_within_s
        while not service.ready():
            if time.monotonic() > deadline:
                raise LocalRunError(
                    f"{service.name} runs but was not ready within {service.ready_within_s:.0f} s; what it said:"
                    f" {service.log}"
                )
            self.pause(0.05)

    def run(
        self, command: Sequence[str], environment: Mapping[str, str], *, doing: str, log: Path | None = None
    ) -> None:
        """
        Run a step of the preparation to its end, its output on stderr or in `log`; stdout is for what the run says.

        Raises:
            LocalRunError: it failed; the text ends with what it said last, where that went into a log.
        """
        self._look()
        with contextlib.ExitStack() as resources:
            output = resources.enter_context(log.open("wb")) if log else sys.stderr
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**environment, _MARK: self._mark},
                cwd=REPOSITORY,
                start_new_session=True,
                preexec_fn=tie_to_parent(),  # noqa: PLW1509 - this process has one thread
            )
            resources.callback(self._tell_reaper, f"-{process.pid}")
            self._tell_reaper(f"+{process.pid}")
            pidfd = os.pidfd_open(process.pid)
            resources.callback(os.close, pidfd)
            self._selector.register(pidfd, selectors.EVENT_READ)
            resources.callback(self._selector.unregister, pidfd)
            try:
                while process.poll() is None:
                    self.pause(None)
            finally:
                self._end(process.pid)
                process.wait()
        if process.returncode:
            why = f":\n{tail(log)}" if log else "; the lines above say why"
            raise LocalRunError(f"{doing} failed ({_how(process.returncode)}){why}")

    def pause(self, timeout_s: float | None) -> None:
        """Wait for that long, or until something happens; None waits for something to happen."""
        self._look()
        if self._selector.select(timeout_s):
            self._look()

    def watch(self) -> None:
        """Wait for the run's end; always raises."""
        while True:
            self.pause(None)

    def _look(self) -> None:
        if self._asked is not None:
            raise StopAsked(self._asked.name)
        for running in self._running:
            if (status := running.process.poll()) is not None:
                raise ServiceDied(
                    f"{running.service.name} ended by itself ({_how(status)}); everything else was stopped."
                    f" Its log: {running.service.log}",
                    tail(running.service.log),
                )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for running in reversed(self._running):
            self._selector.unregister(running.pidfd)
            os.close(running.pidfd)
            if not self._end(running.process.pid):
                self.made_to_end.append(running.service.name)
            running.process.wait()
            running.service.pid_file.unlink(missing_ok=True)
        self._end_runaways()
        remove_shared_memory(self._prefix)  # a Triton that was killed has not
        self._tell_reaper("done")
        assert self._reaper.stdin is not None
        self._reaper.stdin.close()
        self._reaper.wait()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        self._selector.close()
        self._wakeup.close()
        self._sender.close()

    def _end(self, group: int) -> bool:
        """End a service with all of its group; a second signal ends the patience with it."""
        return end_groups([group], self._grace_s, lambda: self._impatient)

    def _end_runaways(self) -> None:
        """What left its service's group is known by the mark of the run."""
        deadline = time.monotonic() + _KILLED_WITHIN_S
        while (left := marked(f"{_MARK}={self._mark}")) and time.monotonic() < deadline:
            kill(left)
            time.sleep(0.01)


def _how(status: int) -> str:
    if status == -signal.SIGKILL:
        return "killed by SIGKILL: somebody's, or the kernel's for lack of memory"
    return f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"


def tail(log: Path) -> str:
    """The last lines of a log, whatever its size."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-_TAIL_LINES:])
    except OSError:
        return ""
