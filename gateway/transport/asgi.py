"""
The few ASGI moves that every endpoint makes: read a bounded body, send a whole response, notice that a caller has left.
"""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from starlette.types import Receive, Scope, Send

from gateway.domain.errors import BodyTooLate, RequestTooLarge, UnsupportedMedia
from gateway.transport.problems import Problem, problem_body, problem_headers

Headers = Sequence[tuple[bytes, bytes]]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class CallerLeft(Exception):
    """The caller closed the connection; nobody waits for an answer."""


def request_id(scope: Scope) -> str:
    """The caller's own `x-request-id` where it is a decent one, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value.decode())
    return "req_" + secrets.token_hex(12)


async def read_body(scope: Scope, receive: Receive, most_bytes: int, patience_s: float) -> bytes:
    """
    The whole body.

    Raises:
        RequestTooLarge: it is over the limit, by its own word or by count.
        UnsupportedMedia: it is not JSON by its own word, or compressed: a few bytes could become gigabytes.
        BodyTooLate: it does not arrive in time.
        CallerLeft: the connection closed first.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > most_bytes:
            raise RequestTooLarge(f"the body has {int(value)} bytes; the limit is {most_bytes}")
        if name == b"content-encoding" and value.lower() != b"identity":
            raise UnsupportedMedia("compressed bodies are not read; send the JSON as it is")
        if name == b"content-type" and value.partition(b";")[0].strip().lower() != b"application/json":
            raise UnsupportedMedia("the body must be JSON; send it with `Content-Type: application/json`")
    try:
        async with asyncio.timeout(patience_s):
            return await _joined(receive, most_bytes)
    except TimeoutError:
        raise BodyTooLate("the body did not arrive in time") from None


async def _joined(receive: Receive, most_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerLeft
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most_bytes:
            raise RequestTooLarge(f"the body is over the limit of {most_bytes} bytes")
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def send_whole(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """A response in one piece."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def send_problem(send: Send, problem: Problem, request_id: str) -> None:
    """A failure as a response."""
    body = problem_body(problem, request_id)
    await send_whole(send, problem.status, problem_headers(problem, request_id), body)


@asynccontextmanager
async def left_notice(receive: Receive) -> AsyncIterator[None]:
    """
    Cancels the block when the caller leaves, and raises CallerLeft in its place.

    To be entered once the body has been read: from then on the only message that can come is the disconnect.
    """
    task = asyncio.current_task()
    assert task is not None
    left = False

    async def watch() -> None:
        nonlocal left
        while (await receive())["type"] != "http.disconnect":
            pass
        left = True
        task.cancel()

    watcher = asyncio.get_running_loop().create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if left and task.uncancel() == 0:
            raise CallerLeft from None
        raise
    finally:
        watcher.cancel()
