"""
The whole local stack for tests: `tailor up --base tiny` with real Valkey, Triton and gateway, as a process of its own.

Decides where it runs (a directory and ports of its own, beside any other run on the machine) and that nothing of it is
left afterwards. Does not know what is tested on it.
"""

import contextlib
import os
import random
import selectors
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from openai import AsyncOpenAI, OpenAI

from gateway.local.layout import REPOSITORY
from gateway.local.ports import Ports, is_free
from gateway.local.processes import descendants, is_alive
from gateway.local.summary import Ready, read_ready
from gateway.local.triton import shared_memory_prefix

READY_WITHIN_S = 240.0
STOPPED_WITHIN_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Stack:
    """
    A running stack. URLs have no trailing slash; `base_url` ends with /v1.

    `processes`: all of it, the supervisor first. `triton_grpc` and `valkey` are host:port.
    """

    ready: Ready
    base_url: str
    gateway_url: str
    admin_url: str
    api_key: str
    second_api_key: str
    admin_key: str
    processes: tuple[int, ...]

    @property
    def pid(self) -> int:
        return self.processes[0]

    @property
    def directory(self) -> Path:
        return Path(self.ready.run_directory)

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    @property
    def config(self) -> Path:
        return self.directory / "tailor.yaml"

    @property
    def triton_http(self) -> str:
        return self.ready.addresses.triton_http

    @property
    def triton_grpc(self) -> str:
        return self.ready.addresses.triton_grpc

    @property
    def triton_metrics(self) -> str:
        return self.ready.addresses.triton_metrics

    @property
    def valkey(self) -> str:
        return self.ready.addresses.valkey

    def service(self, name: str) -> int:
        """The pid of `valkey`, `triton` or `gateway`."""
        return next(service.pid for service in self.ready.services if service.name == name)

    def openai(self, key: str | None = None) -> OpenAI:
        """The official client, without retries that would hide a failure; as tenant acme unless a key is given."""
        return OpenAI(base_url=self.base_url, api_key=key or self.api_key, max_retries=0, timeout=60.0)

    def async_openai(self, key: str | None = None) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=self.base_url, api_key=key or self.api_key, max_retries=0, timeout=60.0)


def read_env(path: Path) -> dict[str, str]:
    """The variables of a run's `env` file."""
    pairs = (line.removeprefix("export ").split("=", 1) for line in path.read_text().splitlines())
    return {name: "".join(shlex.split(value)) for name, value in pairs}


def attach(directory: Path) -> Stack:
    """A stack that runs already, by its run directory."""
    ready = read_ready(directory / "ready.json")
    env = read_env(Path(ready.env))
    pid = int((directory / "lock").read_text())
    return Stack(
        ready=ready,
        base_url=env["OPENAI_BASE_URL"],
        gateway_url=env["TAILOR_URL"],
        admin_url=env["TAILOR_ADMIN_URL"],
        api_key=env["OPENAI_API_KEY"],
        second_api_key=env["SECOND_API_KEY"],
        admin_key=env["TAILOR_ADMIN_KEY"],
        processes=(pid, *descendants(pid)),
    )


def free_offset() -> int:
    """An offset at which every port is free; by chance, so that two test runs do not race for one."""
    candidates = random.sample(range(10_000, 30_000, 10), k=200)
    return next(offset for offset in candidates if all(map(is_free, Ports().shifted(offset).named().values())))


def up_command(directory: Path, offset: int, *options: str) -> list[str]:
    return [
        *(sys.executable, "-m", "gateway.cli.main", "up", "--json"),
        *("--base", "tiny", "--run-dir", str(directory), "--port-offset", str(offset)),
        *options,
    ]


def start(directory: Path, *options: str, offset: int | None = None) -> tuple[subprocess.Popen[str], Stack]:
    """
    Start a stack and wait until it answers.

    Raises:
        AssertionError: it did not; the text holds what it said.
    """
    errors = directory.with_name(f"{directory.name}-stderr.log")
    with errors.open("w") as said:
        process = subprocess.Popen(
            up_command(directory, free_offset() if offset is None else offset, *options),
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            cwd=REPOSITORY,
            start_new_session=True,
        )
    first = _line(process, READY_WITHIN_S)
    if first.startswith('{"base":'):
        return process, attach(directory)
    stop(process)
    raise AssertionError(f"the stack did not start:\n{first}{errors.read_text()}")


def _line(process: subprocess.Popen[str], within_s: float) -> str:
    """What it says on stdout first: one line when it is ready, several when it refuses; empty when nothing in time."""
    assert process.stdout
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        line = process.stdout.readline() if selector.select(within_s) else ""
    return line if line.startswith('{"base":') else line + process.stdout.read() if line else ""


def stop(process: subprocess.Popen[str], number: signal.Signals = signal.SIGINT) -> int:
    """Ask it to end and wait; its exit status."""
    process.send_signal(number)
    try:
        process.communicate(timeout=STOPPED_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
    return process.returncode


def left_behind(stack: Stack, within_s: float = 0.0) -> list[str]:
    """What is still there of a stack that should be gone: processes, ports, shared memory."""
    deadline = time.monotonic() + within_s
    while (left := _left_now(stack)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _left_now(stack: Stack) -> list[str]:
    ports = Ports().shifted(int(stack.valkey.rpartition(":")[2]) - Ports().valkey)
    left = [f"process {pid}: {_command(pid)}" for pid in stack.processes if is_alive(pid)]
    left += [f"port {port} ({name})" for name, port in ports.named().items() if not is_free(port)]
    return left + [str(path) for path in Path("/dev/shm").glob(f"{shared_memory_prefix(ports)}*")]


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:120]
    return "gone"


@contextlib.contextmanager
def running(directory: Path, *options: str) -> Iterator[Stack]:
    """A stack for as long as the block lasts; fails if anything of it is left."""
    process, stack = start(directory, *options)
    try:
        yield stack
    finally:
        status = stop(process)
    assert status == 0, f"the stack ended with status {status}; its logs: {stack.logs}"
    assert left_behind(stack) == []


def reused() -> Path | None:
    """The run directory named by TAILOR_TEST_STACK: tests then run on that stack (base tiny) and leave it running."""
    named = os.environ.get("TAILOR_TEST_STACK")
    return Path(named).resolve() if named else None
