"""
The server side of HTTP/2 sends no more than the client has room for, and the rest when there is room.
"""

import asyncio
import struct

import pytest

from bench.standins.http2 import Connection, frame

_DATA, _HEADERS, _SETTINGS, _WINDOW_UPDATE = 0, 1, 4, 8
_STREAM = 1


class _Client(asyncio.Transport):
    """What the server has written, as frames (type, stream, payload length)."""

    def __init__(self) -> None:
        self.bytes = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.bytes += data

    def frames(self) -> list[tuple[int, int, int]]:
        found, at = [], 0
        while at < len(self.bytes):
            size = int.from_bytes(self.bytes[at : at + 3], "big")
            found.append((self.bytes[at + 3], int.from_bytes(self.bytes[at + 5 : at + 9], "big"), size))
            at += 9 + size
        return found

    def answered(self) -> list[int]:
        """Sizes of the messages on the call's stream; -1 for head and trailers."""
        return [size if kind == _DATA else -1 for kind, stream, size in self.frames() if stream == _STREAM]


def _settings(window: int) -> bytes:
    return frame(_SETTINGS, 0, 0, struct.pack(">HI", 4, window))


def _window(stream: int, more: int) -> bytes:
    return frame(_WINDOW_UPDATE, 0, stream, struct.pack(">I", more))


async def _called(window: int, messages: int, size: int) -> tuple[Connection, _Client]:
    """A call whose answer has `messages` messages of `size` bytes, to a client with so much room on its stream."""

    def answer(connection: Connection, stream: int, message: bytes) -> None:
        assert message == b"question"
        connection.begin(stream)
        for _ in range(messages):
            connection.message(stream, frame(_DATA, 0, stream, bytes(size)))
        connection.end(stream)

    connection, client = Connection(answer, lambda *_: None), _Client()
    connection.connection_made(client)
    sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _settings(window) + frame(_HEADERS, 4, _STREAM, b"\x83")
    sent += frame(_DATA, 1, _STREAM, b"\x00\x00\x00\x00\x08question")
    for byte in sent:
        connection.data_received(bytes([byte]))
    await asyncio.sleep(0)
    return connection, client


async def test_a_whole_answer_leaves_with_its_trailers() -> None:
    _, client = await _called(window=1000, messages=3, size=100)
    assert client.answered() == [-1, 100, 100, 100, -1]


async def test_a_full_stream_waits_for_room_on_it() -> None:
    connection, client = await _called(window=250, messages=4, size=100)
    assert client.answered() == [-1, 100, 100]
    connection.data_received(_window(_STREAM, 149))
    await asyncio.sleep(0)
    assert client.answered() == [-1, 100, 100, 100]
    connection.data_received(_window(_STREAM, 1))
    await asyncio.sleep(0)
    assert client.answered() == [-1, 100, 100, 100, 100, -1]


async def test_a_full_connection_waits_for_room_on_it() -> None:
    connection, client = await _called(window=1 << 20, messages=3, size=30_000)
    assert client.answered() == [-1, 30_000, 30_000]
    connection.data_received(_window(0, 30_000))
    await asyncio.sleep(0)
    assert client.answered() == [-1, 30_000, 30_000, 30_000, -1]


async def test_larger_windows_by_settings_hold_for_streams_under_way() -> None:
    connection, client = await _called(window=100, messages=2, size=100)
    assert client.answered() == [-1, 100]
    connection.data_received(_settings(200))
    await asyncio.sleep(0)
    assert client.answered() == [-1, 100, 100, -1]


@pytest.mark.parametrize("rest", [b"", b"x" * 40])
async def test_who_does_not_speak_http2_is_cut_off(rest: bytes) -> None:
    connection, aborted = Connection(lambda *_: None, lambda *_: None), []

    class Other(_Client):
        def abort(self) -> None:
            aborted.append(True)

    connection.connection_made(Other())
    connection.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + rest)
    assert aborted
