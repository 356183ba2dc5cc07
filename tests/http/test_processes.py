"""
`python -m gateway serve` as processes: workers and control process end together, however the first of them ends.

Neither Redis nor an engine is there, and the gateway is up all the same: it waits for them.
"""

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
import yaml

from gateway.local.processes import group_lives
from tests.contract.adapters.valkey import free_port
from tests.contract.backends.worlds import ROOT, TINY
from tests.http.gateway import wait_for
from tests.unit.domain.making import MANIFEST


@dataclass(frozen=True)
class Processes:
    first: "subprocess.Popen[bytes]"
    log: Path

    def all_gone(self) -> bool:
        self.first.poll()
        return not group_lives([self.first.pid])

    def errors(self) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if '"level":"error"' in line]


def live(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, ConnectionError):
        return False


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    (tmp_path / "manifest.json").write_bytes(msgspec.json.encode(MANIFEST))
    callers, admin = free_port(), free_port()
    document = {
        "listen": {"port": callers, "workers": 2},
        "admin": {"port": admin},
        "redis": {"url": f"redis://127.0.0.1:{free_port()}/0"},
        "store": {"directory": "store"},
        "key_pepper": "a pepper of the tests",
        "bases": [{"name": "tiny", "tokenizer": str(TINY)}],
        "endpoints": [{"name": "triton-1", "url": f"127.0.0.1:{free_port()}", "manifest": "manifest.json"}],
    }
    config, log = tmp_path / "tailor.yaml", tmp_path / "log"
    config.write_text(yaml.safe_dump(document))
    with log.open("wb") as said:
        first = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve", "--config", str(config)],
            stderr=said,
            cwd=ROOT,
            start_new_session=True,
        )
    try:
        wait_for(lambda: live(callers) and live(admin), within_s=60)
        yield Processes(first, log)
    finally:
        if group_lives([first.pid]):
            os.killpg(first.pid, signal.SIGKILL)
        first.wait()


def test_when_the_first_is_killed_nobody_stays_on_its_port(processes):
    os.kill(processes.first.pid, signal.SIGKILL)
    wait_for(processes.all_gone)


def test_a_stop_ends_all_of_them_and_logs_no_error(processes):
    processes.first.terminate()
    processes.first.wait(20)
    wait_for(processes.all_gone)
    assert processes.errors() == []
