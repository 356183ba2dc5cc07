"""
Orders to the processes of a run and their answers: one line of JSON each way over a Unix socket.

Decides that one order is served at a time for each connection. Does not know what orders mean.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from gateway.local.errors import LocalRunError
from gateway.local.supervisor import Supervisor

Order = TypeVar("Order")
Reply = TypeVar("Reply")

_LINE_BYTES = 64 * 1024 * 1024
_LOOK_S = 0.05


async def serve(path: Path, order: type[Order], handle: Callable[[Order], Awaitable[object]]) -> None:
    """Answer orders until cancelled. A failure to handle one is that process's end: its log then says why."""
    decoder = msgspec.json.Decoder(order)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(msgspec.json.encode(await handle(decoder.decode(line))) + b"\n")
                await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_unix_server(connected, path, limit=_LINE_BYTES)
    async with server:
        await server.serve_forever()


def answers(path: Path) -> bool:
    """Whether somebody listens there."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def ask(supervisor: Supervisor, path: Path, order: object, reply: type[Reply]) -> Reply:
    """
    Give an order and wait for its answer, however long it takes.

    Raises:
        StopAsked, ServiceDied: the run ended meanwhile.
        LocalRunError: the process closed the connection without an answer.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(msgspec.json.encode(order) + b"\n")
        connection.settimeout(_LOOK_S)
        answer = bytearray()
        while not answer.endswith(b"\n"):
            supervisor.pause(0)
            try:
                part = connection.recv(1 << 20)
            except TimeoutError:
                continue
            if not part:
                raise LocalRunError(f"{path.stem} gave no answer; {path.parent / 'logs' / path.stem}.log says why")
            answer += part
    return msgspec.json.decode(bytes(answer), type=reply)
