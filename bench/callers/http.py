"""
Callers of an OpenAI-compatible server, cheap enough to stand beside what they measure: a process on plain sockets.

Decides how a response's end is found while it arrives, and checks every answer whole once it is there. Does not know
who answers.

    python -m bench.callers.http CONTROL_SOCKET
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import cast

import msgspec
import uvloop

from bench import control
from bench.callers.loop import Answered, Wrong, closed_loop
from bench.callers.order import Order, Tally

_CONTENT = b'"delta":{"content":'
_DONE = b"[DONE]"


class _Text(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Text | None = None
    message: _Text | None = None
    finish_reason: str | None = None

    @property
    def text(self) -> str:
        said = self.delta or self.message
        return (said.content if said else None) or ""


class _Usage(msgspec.Struct):
    completion_tokens: int


class _Object(msgspec.Struct):
    """A chat completion or a chunk of one, as far as it is checked."""

    choices: list[_Choice]
    usage: _Usage | None = None


_objects = msgspec.json.Decoder(_Object)


class Response(msgspec.Struct):
    """What came back, and when its first content (or, without a stream, its whole) was there."""

    head: bytes
    body: bytes
    first: float

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])

    def parts(self) -> list[bytes]:
        """The body's pieces: its chunks, or the one that it is."""
        if b"transfer-encoding: chunked" not in self.head.lower():
            return [self.body]
        parts: list[bytes] = []
        at = 0
        while True:
            line = self.body.index(b"\r\n", at)
            size = int(self.body[at:line], 16)
            if not size:
                return parts
            parts.append(self.body[line + 2 : line + 2 + size])
            at = line + 2 + size + 2


class Caller(asyncio.Protocol):
    """One connection, kept; one request at a time."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._head: bytes | None = None
        self._length: int | None = None
        self._got = 0
        self._first = 0.0
        self._waiter: asyncio.Future[Response] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self.is_open = True

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ConnectionError("the connection closed before the answer was complete"))

    def ask(self, request: bytes) -> "asyncio.Future[Response]":
        """Send a request; the future gives its whole response."""
        self._parts, self._head, self._length, self._got, self._first = [], None, None, 0, 0.0
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._waiter

    def close(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._parts.append(data)
        if not self._first and _CONTENT in data:
            self._first = time.perf_counter()
        if self._head is None:
            joined = b"".join(self._parts)
            self._head, end, rest = joined.partition(b"\r\n\r\n")
            if not end:
                self._head, self._parts = None, [joined]
                return
            self._length = _content_length(self._head)
            self._parts = [rest]
            data = rest
        self._got += len(data)
        if self._length is None:
            if not data.endswith(b"0\r\n\r\n") and not (len(data) < 5 and self._ends_chunked()):
                return
        elif self._got < self._length:
            return
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(
                Response(self._head, b"".join(self._parts), self._first or time.perf_counter()),
            )

    def _ends_chunked(self) -> bool:
        """The last chunk may itself be split between reads."""
        return b"".join(self._parts[-5:]).endswith(b"0\r\n\r\n")


def _content_length(head: bytes) -> int | None:
    """None for a chunked body."""
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return None


def request(order: Order, number: int) -> bytes:
    """The bytes of one chat request."""
    body: dict[str, object] = {
        "model": order.model,
        "messages": order.chats[number % len(order.chats)],
        "temperature": 0,
        "max_tokens": order.tokens,
        "min_tokens": order.tokens,
    }
    if order.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    content = msgspec.json.encode(body)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{order.port}\r\nAuthorization: Bearer {order.key}\r\n"
        f"Content-Type: application/json\r\nAccept: */*\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def check(order: Order, response: Response) -> Answered:
    """
    Read an answer whole.

    Raises:
        Wrong: it is not the one that was ordered.
    """
    if response.status != 200:
        raise Wrong(f"status {response.status}: {response.body[:300].decode(errors='replace')}")
    body = b"".join(response.parts())
    payloads = [event.removeprefix(b"data: ") for event in body.split(b"\n\n") if event] if order.stream else [body]
    if order.stream and payloads.pop() != _DONE:
        raise Wrong(f"the stream does not end with [DONE] but {body[-200:]!r}")
    try:
        objects = [_objects.decode(payload) for payload in payloads]
    except msgspec.MsgspecError as error:
        raise Wrong(f"{error} in {body[-200:]!r}") from error
    choices = [choice for item in objects for choice in item.choices]
    text = "".join([choice.text for choice in choices])
    tokens = next((item.usage.completion_tokens for item in objects if item.usage), -1)
    reason = choices[-1].finish_reason if choices else None
    if tokens != order.tokens or reason != "length" or (order.text is not None and text != order.text):
        raise Wrong(f"{tokens} tokens, finish_reason {reason}, {text[:120]!r} instead of {order.tokens} tokens")
    return Answered(tokens, response.first)


async def carry_out(order: Order) -> Tally:
    """Connect, call, check, tell. Connections are made before the clock starts."""
    loop = asyncio.get_running_loop()
    requests = [request(order, number) for number in range(len(order.chats))]
    callers = [
        (await loop.create_connection(Caller, "127.0.0.1", order.port))[1]
        for _ in range(min(order.callers, order.requests))
    ]

    async def ask(me: int, number: int) -> Answered:
        if not callers[me].is_open:
            callers[me] = (await loop.create_connection(Caller, "127.0.0.1", order.port))[1]
        return check(order, await callers[me].ask(requests[number % len(requests)]))

    try:
        return await closed_loop(order, ask)
    finally:
        for caller in callers:
            caller.close()


if __name__ == "__main__":
    uvloop.run(control.serve(Path(sys.argv[1]), Order, carry_out))
