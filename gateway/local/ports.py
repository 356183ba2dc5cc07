"""
Which ports a local run uses, and who sits on one that is taken.

Decides the numbers (design, section 4) and how they move together. Does not know what listens there.
"""

import errno
import os
import socket
from dataclasses import dataclass, fields
from pathlib import Path

HOST = "127.0.0.1"
_LISTENING = "0A"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """TCP ports on the loopback address."""

    gateway: int = 8080
    admin: int = 8081
    triton_http: int = 8000
    triton_grpc: int = 8001
    triton_metrics: int = 8002
    valkey: int = 8379

    def shifted(self, offset: int) -> "Ports":
        """
        All ports moved by `offset`, so that two runs stand beside each other.

        Raises:
            ValueError: a port would leave 1024 to 65535.
        """
        moved = {field.name: getattr(self, field.name) + offset for field in fields(self)}
        for name, port in moved.items():
            if not 1024 <= port <= 65535:
                raise ValueError(
                    f"an offset of {offset} puts {name} on port {port}; ports end at 65535 and start at 1024"
                )
        return Ports(**moved)

    def named(self) -> dict[str, int]:
        return {field.name.replace("_", " "): getattr(self, field.name) for field in fields(self)}


def is_free(port: int) -> bool:
    """Whether this process could listen there now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: a port in TIME_WAIT is free, one with a listener is not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
        return True


def holder(port: int) -> str | None:
    """
    Name and pid of the process that listens on a port, such as `nginx, pid 812`.

    None where it cannot be seen: another user's process, or another network namespace.
    """
    sockets = _listening_inodes(port)
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            for descriptor in (process / "fd").iterdir():
                if os.readlink(descriptor) in sockets:
                    return f"{(process / 'comm').read_text().strip()}, pid {process.name}"
        except OSError:
            continue  # ended meanwhile, or not ours to look into
    return None


def _listening_inodes(port: int) -> set[str]:
    """The kernel's names of sockets that listen on a port. Source: proc_pid_net(5), columns of /proc/net/tcp."""
    names = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            columns = row.split()
            if columns[3] == _LISTENING and int(columns[1].rpartition(":")[2], 16) == port:
                names.add(f"socket:[{columns[9]}]")
    return names
