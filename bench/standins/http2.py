"""
As much of HTTP/2 and gRPC as a server of server-sent messages needs: one message in, any number out, status OK.

Decides frames and flow control. Does not decode header blocks: whoever answers tells calls apart by their messages, so
it serves no client but those of a benchmark. What is sent in one turn of the loop leaves in one write.

Source: RFC 9113 (frames), RFC 7541 (header blocks), gRPC over HTTP2 (length-prefixed messages, trailers).
"""

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from typing import cast

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME = struct.Struct(">HBBBI")  # length in two parts, type, flags, stream
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_ACK, _END_STREAM, _END_HEADERS, _PADDED = 1, 1, 4, 8
_INITIAL_WINDOW_SIZE = 4
_DEFAULT_WINDOW = 65535
_OUR_WINDOW = (1 << 31) - 1

# ":status: 200" is entry 8 of the static table, "content-type" entry 31; the rest are literals that nobody indexes.
_HEAD = b"\x88" + b"\x0f\x10" + b"\x10application/grpc"
_TRAILERS = b"\x00" + b"\x0bgrpc-status" + b"\x010"


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame as it travels."""
    length = len(payload)
    return _FRAME.pack(length >> 8, length & 0xFF, kind, flags, stream) + payload


_HELLO = frame(_SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW_SIZE, _OUR_WINDOW)) + frame(
    _WINDOW_UPDATE, 0, 0, struct.pack(">I", _OUR_WINDOW - _DEFAULT_WINDOW)
)


class Connection(asyncio.Protocol):
    """
    One client. `on_message(connection, stream, message)` is called for each call's message, `on_gone(connection,
    stream)` when a call is cancelled; the answer is given with `begin`, `message` and `end`, at any time.
    """

    def __init__(
        self,
        on_message: "Callable[[Connection, int, bytes], None]",
        on_gone: "Callable[[Connection, int], None]",
    ) -> None:
        self._on_message = on_message
        self._on_gone = on_gone
        self._in = bytearray()
        self._greeted = False
        self._calls: dict[int, bytearray] = {}
        self._window = _DEFAULT_WINDOW
        self._first_window = _DEFAULT_WINDOW
        self._windows: dict[int, int] = {}
        self._held: dict[int, deque[bytes]] = {}
        self._out: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._loop = asyncio.get_running_loop()
        self._transport.write(_HELLO)

    def connection_lost(self, error: Exception | None) -> None:
        for stream in list(self._windows):
            self._gone(stream)

    def begin(self, stream: int) -> None:
        """The response's head."""
        self._write(frame(_HEADERS, _END_HEADERS, stream, _HEAD))

    def message(self, stream: int, data: bytes) -> None:
        """One DATA frame, made by the caller; it waits where the client's windows are full."""
        if stream in self._held or not self._fits(stream, len(data) - _FRAME.size):
            self._held.setdefault(stream, deque()).append(data)
            return
        self._write(data)

    def end(self, stream: int) -> None:
        """Status OK, after all messages."""
        trailers = frame(_HEADERS, _END_HEADERS | _END_STREAM, stream, _TRAILERS)
        if stream in self._held:
            self._held[stream].append(trailers)
            return
        self._write(trailers)
        self._windows.pop(stream, None)

    def _write(self, data: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        self._transport.write(b"".join(self._out))
        self._out.clear()

    def _fits(self, stream: int, size: int) -> bool:
        left = self._windows.get(stream, 0)
        if size > left or size > self._window:
            return False
        self._windows[stream] = left - size
        self._window -= size
        return True

    def _release(self, stream: int) -> None:
        held = self._held.get(stream)
        while held:
            is_data = held[0][3] == _DATA
            if is_data and not self._fits(stream, len(held[0]) - _FRAME.size):
                return
            if not is_data:
                self._windows.pop(stream, None)
            self._write(held.popleft())
        self._held.pop(stream, None)

    def _gone(self, stream: int) -> None:
        self._calls.pop(stream, None)
        self._held.pop(stream, None)
        if self._windows.pop(stream, None) is not None:
            self._on_gone(self, stream)

    def data_received(self, data: bytes) -> None:
        self._in += data
        if not self._greeted:
            if len(self._in) < len(_PREFACE):
                return
            if not self._in.startswith(_PREFACE):
                self._transport.abort()
                return
            del self._in[: len(_PREFACE)]
            self._greeted = True
        used = 0
        while len(self._in) - used >= _FRAME.size:
            high, low, kind, flags, stream = _FRAME.unpack_from(self._in, used)
            end = used + _FRAME.size + (high << 8 | low)
            if end > len(self._in):
                break
            self._take(kind, flags, stream & 0x7FFFFFFF, bytes(self._in[used + _FRAME.size : end]))
            used = end
        del self._in[:used]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA:
            self._take_data(flags, stream, payload)
        elif kind == _HEADERS:
            self._calls[stream] = bytearray()
            self._windows[stream] = self._first_window
        elif kind == _WINDOW_UPDATE:
            self._take_window(stream, int.from_bytes(payload, "big"))
        elif kind == _RST_STREAM:
            self._gone(stream)
        elif kind == _SETTINGS and not flags & _ACK:
            self._take_settings(payload)
            self._write(frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self._write(frame(_PING, _ACK, 0, payload))

    def _take_data(self, flags: int, stream: int, payload: bytes) -> None:
        if payload:
            self._write(frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", len(payload))))
        if flags & _PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        call = self._calls.get(stream)
        if call is None:
            return
        call += payload
        size = int.from_bytes(call[1:5], "big")
        if len(call) >= 5 and len(call) >= 5 + size:
            del self._calls[stream]
            self._on_message(self, stream, bytes(call[5 : 5 + size]))

    def _take_window(self, stream: int, more: int) -> None:
        if stream:
            if stream in self._windows:
                self._windows[stream] += more
                self._release(stream)
            return
        self._window += more
        for waiting in list(self._held):
            self._release(waiting)

    def _take_settings(self, payload: bytes) -> None:
        for key, value in struct.iter_unpack(">HI", payload):
            if key == _INITIAL_WINDOW_SIZE:
                change, self._first_window = value - self._first_window, value
                for stream in list(self._windows):
                    self._windows[stream] += change
                    self._release(stream)
