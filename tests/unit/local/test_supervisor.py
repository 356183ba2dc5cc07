"""Real processes under the supervisor: all of them run, or none does."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.local.errors import LocalRunError
from gateway.local.layout import REPOSITORY, RunDirectory
from gateway.local.processes import is_alive
from gateway.local.supervisor import Service, Supervisor
from tests.unit.local.supervised import DEAF, POLITE, service

GONE_WITHIN_S = 20.0


@dataclass
class Stack:
    process: subprocess.Popen[str]
    directory: Path
    services: dict[str, int]
    all: list[int]

    def wait(self) -> tuple[int, str]:
        """Exit status and what it said after its first line."""
        said, _ = self.process.communicate(timeout=GONE_WITHIN_S)
        return self.process.returncode, said

    def left(self) -> list[int]:
        """What still runs after everything had time to end."""
        deadline = time.monotonic() + GONE_WITHIN_S
        while (left := [pid for pid in self.all if is_alive(pid)]) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left


def start(directory: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.unit.local.supervised", directory],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        start_new_session=True,
    )


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    process = start(tmp_path)
    assert process.stdout
    pids = json.loads(process.stdout.readline())
    running = Stack(process, tmp_path, pids["services"], pids["all"])
    yield running
    process.kill()
    process.wait()
    assert running.left() == []


def test_everything_runs_at_first(stack: Stack) -> None:
    assert set(stack.services) == {"polite", "deaf", "runaway"}
    assert len(stack.all) == 5  # the three, the runaway's child, the reaper
    assert all(is_alive(pid) for pid in stack.all)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_asks_stops_everything(stack: Stack, number: signal.Signals) -> None:
    stack.process.send_signal(number)

    assert stack.wait() == (0, f"asked by {number.name}\n")
    assert [pid for pid in stack.all if is_alive(pid)] == []


@pytest.mark.parametrize("name", ["polite", "deaf", "runaway"])
def test_when_one_ends_all_end_and_it_is_named(stack: Stack, name: str) -> None:
    os.kill(stack.services[name], signal.SIGKILL)

    status, said = stack.wait()

    assert status == 1
    assert said.startswith(f"{name} ended by itself (killed by SIGKILL")
    assert [pid for pid in stack.all if is_alive(pid)] == []


def test_the_last_lines_of_what_ended_are_shown(stack: Stack) -> None:
    os.kill(stack.services["polite"], signal.SIGTERM)

    assert "polite line" in stack.wait()[1]


def test_killing_the_supervisor_leaves_nothing(stack: Stack) -> None:
    stack.process.kill()
    stack.process.wait()

    assert stack.left() == []


def test_a_second_run_in_the_same_directory_is_refused(stack: Stack) -> None:
    second = start(stack.directory)
    said, _ = second.communicate(timeout=GONE_WITHIN_S)

    assert second.returncode == 2
    assert f"already running in {stack.directory} (pid {stack.process.pid})" in said


def test_after_a_killed_run_the_next_one_waits_for_its_reaper_and_starts(stack: Stack) -> None:
    stack.process.kill()
    stack.process.wait()

    second = start(stack.directory)
    assert second.stdout
    assert "services" in json.loads(second.stdout.readline())
    second.send_signal(signal.SIGINT)
    second.communicate(timeout=GONE_WITHIN_S)
    assert second.returncode == 0


def test_a_service_that_never_gets_ready_is_said_so_and_stopped(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.create()
    slow = Service(
        name="slow",
        command=[sys.executable, "-c", "import time; time.sleep(600)"],
        environment=dict(os.environ),
        log=run.log("slow"),
        pid_file=run.pids / "slow.pid",
        ready=lambda: False,
        ready_within_s=0.1,
    )
    with (
        run.held() as lock,
        Supervisor(grace_s=5.0, shared_memory_prefix="tailor-test-none-", lock=lock) as supervisor,
    ):
        pid = supervisor.start(slow)
        with pytest.raises(LocalRunError, match=r"slow runs but was not ready within 0 s; what it said: .*slow\.log"):
            supervisor.wait_until_ready(slow)

    assert not is_alive(pid)
    assert not slow.pid_file.exists()


def test_a_step_of_the_preparation_that_fails_is_said_so(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.create()
    with (
        pytest.raises(LocalRunError, match=r"knitting failed \(exit status 3\); the lines above say why"),
        run.held() as lock,
        Supervisor(grace_s=5.0, shared_memory_prefix="tailor-test-none-", lock=lock) as supervisor,
    ):
        supervisor.run([sys.executable, "-c", "raise SystemExit(3)"], dict(os.environ), doing="knitting")


def test_what_a_failed_step_wrote_into_its_log_is_shown(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.create()
    with (
        pytest.raises(LocalRunError, match=r"knitting failed \(exit status 1\):\nout of wool"),
        run.held() as lock,
        Supervisor(grace_s=5.0, shared_memory_prefix="tailor-test-none-", lock=lock) as supervisor,
    ):
        supervisor.run(
            [sys.executable, "-c", "raise SystemExit('out of wool')"],
            dict(os.environ),
            doing="knitting",
            log=run.log("knitting"),
        )


def test_what_a_step_says_goes_to_stderr_and_leaves_stdout_to_the_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = RunDirectory(tmp_path)
    run.create()
    with run.held() as lock, Supervisor(grace_s=5.0, shared_memory_prefix="tailor-test-none-", lock=lock) as supervisor:
        supervisor.run([sys.executable, "-c", "print('purl')"], dict(os.environ), doing="knitting")

    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.endswith("purl\n")  # gRPC, where a test before used it, speaks there too


def test_who_had_to_be_made_to_end_is_known(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.create()
    with run.held() as lock:
        supervisor = Supervisor(grace_s=0.3, shared_memory_prefix="tailor-test-none-", lock=lock)
        with supervisor:
            for name, code in (("polite", POLITE), ("deaf", DEAF)):
                supervisor.start(service(run, name, code))
            while "ready" not in run.log("deaf").read_text():
                supervisor.pause(0.01)

    assert supervisor.made_to_end == ["deaf"]
