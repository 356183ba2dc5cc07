"""`tailor up` as a person meets it: it starts whole, says what is wrong in one sentence, and leaves nothing behind."""

import http.client
import os
import pty
import re
import select
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.local.bases import BASES, BaseName
from gateway.local.config_file import TENANTS
from gateway.local.demo import demo_profiles
from gateway.local.layout import REPOSITORY
from gateway.local.ports import Ports
from gateway.local.processes import descendants, is_alive
from tests.live.stack import (
    READY_WITHIN_S,
    STOPPED_WITHIN_S,
    Stack,
    attach,
    free_offset,
    left_behind,
    read_env,
    reused,
    start,
    stop,
    up_command,
)

pytestmark = pytest.mark.live

ENV_NAMES = {
    "OPENAI_BASE_URL",
    "OPENAI_API_KEY",
    "SECOND_API_KEY",
    "TAILOR_URL",
    "TAILOR_ADMIN_URL",
    "TAILOR_ADMIN_KEY",
}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[str]", Stack]]:
    """A bare stack that the test may break."""
    process, stack = start(tmp_path / "run", "--no-demo")
    yield process, stack
    if process.poll() is None:
        stop(process)


def offset_of(stack: Stack) -> int:
    return int(stack.valkey.rpartition(":")[2]) - Ports().valkey


def said_by(command: list[str]) -> tuple[int, str]:
    """Exit status of a run that should refuse to start, and everything it said, on one line."""
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    return ended.returncode, " ".join((ended.stdout + ended.stderr).split())


def test_the_env_file_has_the_promised_names_and_is_its_owners_alone(stack: Stack) -> None:
    env = stack.directory / "env"

    assert set(read_env(env)) == ENV_NAMES
    assert stat.S_IMODE(env.stat().st_mode) == 0o600


def test_the_run_directory_is_its_owners_alone(stack: Stack) -> None:
    assert stat.S_IMODE(stack.directory.stat().st_mode) == 0o700


def test_every_demo_profile_is_there_for_its_tenant_and_not_for_the_other(stack: Stack) -> None:
    listed = demo_profiles(BASES[BaseName.TINY].demo)
    for tenant, key in zip(TENANTS, (stack.api_key, stack.second_api_key), strict=True):
        models = {model.id for model in stack.openai(key).models.list()}

        assert models >= {profile.name for profile in listed if profile.tenant == tenant} | {"tiny"}
        assert not models & {profile.name for profile in listed if profile.tenant != tenant}


def test_every_service_has_a_log_and_runs_under_the_supervisor(stack: Stack) -> None:
    for service in stack.ready.services:
        assert Path(service.log).stat().st_size
        assert service.pid in stack.processes


def test_every_port_listens_on_the_loopback_address_only(stack: Stack) -> None:
    ports = set(Ports().shifted(offset_of(stack)).named().values())
    loopback = ("0100007F", "0000000000000000FFFF00000100007F")  # as the kernel writes 127.0.0.1 and ::ffff:127.0.0.1
    rows = [row.split() for table in ("tcp", "tcp6") for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    listening = [row[1].split(":") for row in rows if row[3] == "0A"]
    addresses = {int(port, 16): address for address, port in listening if int(port, 16) in ports}

    assert set(addresses) == ports
    assert set(addresses.values()) <= set(loopback)


def test_tritons_metrics_are_where_the_run_says(stack: Stack) -> None:
    host, _, path = stack.triton_metrics.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=10)
    connection.request("GET", f"/{path}")

    assert "nv_trt_llm_request_metrics" in connection.getresponse().read().decode()
    connection.close()


@pytest.mark.skipif(reused() is not None, reason="the stack of TAILOR_TEST_STACK runs elsewhere")
def test_a_second_run_in_the_same_directory_is_one_sentence(stack: Stack) -> None:
    status, said = said_by(up_command(stack.directory, free_offset()))

    assert status == 1
    assert f"already running in {stack.directory} (pid {stack.pid})" in said
    assert all(map(is_alive, stack.processes))


def test_a_taken_port_is_one_sentence_with_its_number_and_who_holds_it(stack: Stack, tmp_path: Path) -> None:
    status, said = said_by(up_command(tmp_path / "run", offset_of(stack)))

    assert status == 1
    assert re.search(
        rf"port {stack.base_url.split(':')[2][:5]} \(gateway\) is taken by .*, pid {stack.service('gateway')}", said
    )


def test_ctrl_c_leaves_nothing_and_the_next_run_finds_the_profiles_again(tmp_path: Path) -> None:
    process, first = start(tmp_path / "run")
    profiles = {model.id for model in first.openai().models.list()}

    assert stop(process, signal.SIGINT) == 0
    assert left_behind(first) == []
    assert not (first.directory / "env").exists()

    process, second = start(tmp_path / "run")
    try:
        assert {model.id for model in second.openai().models.list()} == profiles
        assert "0 new" in (tmp_path / "run-stderr.log").read_text()
        assert second.api_key != first.api_key
    finally:
        assert stop(process) == 0
    assert left_behind(second) == []


@pytest.mark.parametrize("name", ["valkey", "triton", "gateway"])
def test_when_one_service_ends_all_end_and_it_is_named(own: tuple["subprocess.Popen[str]", Stack], name: str) -> None:
    process, stack = own
    os.kill(stack.service(name), signal.SIGKILL)

    said, _ = process.communicate(timeout=STOPPED_WITHIN_S)

    assert process.returncode == 1
    assert f"{name} ended by itself (killed by SIGKILL" in said
    assert str(stack.logs / f"{name}.log") in said
    assert left_behind(stack) == []


def test_killing_the_supervisor_leaves_nothing(own: tuple["subprocess.Popen[str]", Stack]) -> None:
    process, stack = own

    process.kill()
    process.communicate()

    assert left_behind(stack, within_s=STOPPED_WITHIN_S) == []


def test_make_up_on_a_terminal_ends_with_ctrl_c_and_leaves_nothing(tmp_path: Path) -> None:
    """As a person does it: make in front of a terminal, ^C typed there."""
    offset = free_offset()
    pid, terminal = pty.fork()
    if pid == 0:
        arguments = f"--no-demo --run-dir {tmp_path / 'run'} --port-offset {offset}"
        os.execvpe(
            "make",
            ["make", "-C", str(REPOSITORY), "up", "BASE=tiny", f"ARGS={arguments}"],
            {**os.environ, "TERM": "xterm"},
        )
    try:
        shown = _read_until(terminal, b"Ctrl-C stops everything", READY_WITHIN_S)
        assert b"Tailor serves tiny" in shown
        assert b"source " in shown
        stack = attach(tmp_path / "run")
        everything = [pid, *descendants(pid)]
        os.write(terminal, b"\x03")
        _read_until(terminal, None, STOPPED_WITHIN_S)
        os.waitpid(pid, 0)
    finally:
        os.close(terminal)
    assert left_behind(stack) == []
    assert [process for process in everything if is_alive(process)] == []


def _read_until(terminal: int, mark: bytes | None, within_s: float) -> bytes:
    """What appears on a terminal until `mark` does, or until it is closed."""
    shown = b""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and (mark is None or mark not in shown):
        if select.select([terminal], [], [], 1.0)[0]:
            try:
                shown += os.read(terminal, 65536)
            except OSError:  # the other side is gone
                break
    assert mark is None or mark in shown, shown.decode(errors="replace")
    return shown
