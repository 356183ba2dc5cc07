"""
A caller's connection: uvicorn's, with the bounds that it lacks.

Decides how large a request's head may be, how long it may take to arrive, and how long a caller may leave unread what
is there for him; and that what is no HTTP is refused in OpenAI's shape. Does not know what a request asks for.

uvicorn on httptools has no such bound: 64 MB of headers are 76 MB of memory, before any key has been looked at.
"""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.transport.problems import HEAD_TOO_LARGE, NOT_HTTP, problem_body, problem_headers

# A refusal is followed by a while of reading and dropping: closed at once, it would be lost with what is still coming.
_LINGER_S = 1.0
_AROUND_HEADER = len(b": \r\n")


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """`head_bytes`: request line, headers and trailers. `head_s`: for all of a head. `stall_s`: nothing read at all."""

    head_bytes: int = 32 * 1024
    head_s: float = 10.0
    stall_s: float = 20.0


def bounded_connections(limits: ConnectionLimits) -> Callable[..., asyncio.Protocol]:
    """What uvicorn makes for each connection. Can be pickled, as its workers need it."""
    return partial(BoundedConnection, limits)


class _HeadTooLarge(Exception):
    """Ends the parser's work."""


class BoundedConnection(HttpToolsProtocol):
    """One connection, with any number of requests one after the other."""

    def __init__(self, limits: ConnectionLimits, **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self._limits = limits
        self._in_head = True
        self._heads = 0
        self._left = limits.head_bytes
        self._unfinished = 0
        self._refused = False
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        was_in_head, heads = self._in_head, self._heads
        super().data_received(data)
        # The parser tells of a header when it has all of it: what it gathers until then is counted here.
        if was_in_head and self._heads == heads and not self._refused:
            self._unfinished += len(data)
            if self._unfinished > self._limits.head_bytes:
                self._left = -1
                self.send_400_response("")
            elif self._deadline is None:
                self._expect_head()

    def on_message_begin(self) -> None:
        self._left = self._limits.head_bytes
        if self._deadline is None:
            self._expect_head()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + _AROUND_HEADER)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._heads += 1
        self._unfinished = 0
        self._disarm()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = True
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall = self.loop.call_later(self._limits.stall_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be read, in OpenAI's shape; uvicorn's own answer is plain text."""
        told = HEAD_TOO_LARGE if self._left < 0 else NOT_HTTP
        identifier = "req_" + secrets.token_hex(12)
        body = problem_body(told, identifier)
        headers = [
            *problem_headers(told, identifier),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        self._refused = True
        self._disarm()
        self.transport.write(STATUS_LINE[told.status] + lines + b"\r\n" + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._deadline = self.loop.call_later(_LINGER_S, self.transport.close)

    def _count(self, nbytes: int) -> None:
        self._left -= nbytes
        if self._left < 0:
            raise _HeadTooLarge

    def _expect_head(self) -> None:
        self._deadline = self.loop.call_later(self._limits.head_s, self._late)

    def _late(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            # The request before it is still being answered; that is what the connection is kept for.
            self._expect_head()
        else:
            self.transport.close()

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
