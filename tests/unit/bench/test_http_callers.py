"""
A caller finds a response's end wherever the network cuts it, and takes no answer for another.
"""

import asyncio

import pytest

from bench.callers.http import Caller, Response, check
from bench.callers.loop import Wrong
from bench.callers.order import Order
from bench.prompts import ChatTurn

_CHUNK = 'data: {"choices":[{"index":0,"delta":{"content":"%s"},"finish_reason":null}],"usage":null}\n\n'
_OPENING = 'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
_FINISH = 'data: {"choices":[{"index":0,"delta":{},"finish_reason":"length"}],"usage":null}\n\n'
_USAGE = 'data: {"choices":[],"usage":{"completion_tokens":2}}\n\n'
_DONE = "data: [DONE]\n\n"
_HEAD = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
_PLAIN = (
    '{"choices":[{"index":0,"message":{"content":"a b"},"finish_reason":"length"}],"usage":{"completion_tokens":2}}'
)


def _stream(*events: str) -> bytes:
    chunks = [f"{len(event.encode()):x}\r\n{event}\r\n" for event in events]
    return (_HEAD + "".join(chunks) + "0\r\n\r\n").encode()


def _order(*, stream: bool) -> Order:
    chat = (ChatTurn("user", "hello"),)
    return Order(
        port=1, stream=stream, tokens=2, callers=1, requests=1, spread_s=0, chats=(chat,), text="a b", limit_s=1
    )


class _NoNetwork(asyncio.Transport):
    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass


async def _received(*parts: bytes) -> Response:
    caller = Caller()
    caller.connection_made(_NoNetwork())
    waiter = caller.ask(b"")
    for part in parts:
        assert not waiter.done()
        caller.data_received(part)
    return await asyncio.wait_for(waiter, 1)


async def test_a_stream_cut_anywhere_is_whole_at_its_end() -> None:
    whole = _stream(_OPENING + _CHUNK % "a", _CHUNK % " b", _FINISH + _USAGE + _DONE)
    for cut in range(1, len(whole)):
        answered = check(_order(stream=True), await _received(whole[:cut], whole[cut:]))
        assert answered.tokens == 2


async def test_a_stream_that_arrives_byte_by_byte_is_whole() -> None:
    whole = _stream(_OPENING + _CHUNK % "a", _CHUNK % " b", _FINISH + _USAGE + _DONE)
    assert check(_order(stream=True), await _received(*(bytes([byte]) for byte in whole))).tokens == 2


async def test_a_plain_answer_is_whole_by_its_length() -> None:
    whole = f"HTTP/1.1 200 OK\r\nContent-Length: {len(_PLAIN)}\r\n\r\n{_PLAIN}".encode()
    for cut in range(1, len(whole)):
        assert check(_order(stream=False), await _received(whole[:cut], whole[cut:])).tokens == 2


@pytest.mark.parametrize(
    "events",
    [
        pytest.param((_OPENING, _CHUNK % "a", _FINISH, _USAGE, _DONE), id="a token's text is missing"),
        pytest.param((_OPENING, _CHUNK % "a", _CHUNK % " c", _FINISH, _USAGE, _DONE), id="another text"),
        pytest.param((_OPENING, _CHUNK % "a", _CHUNK % " b", _FINISH, _USAGE), id="no DONE"),
        pytest.param((_OPENING, _CHUNK % "a", _CHUNK % " b", _FINISH, _DONE), id="no usage"),
        pytest.param((_OPENING, _CHUNK % "a", _CHUNK % " b", _USAGE, _DONE), id="no finish reason"),
        pytest.param(
            (_OPENING, _CHUNK % "a", _CHUNK % " b", _FINISH, _USAGE.replace("2", "1"), _DONE), id="fewer tokens counted"
        ),
        pytest.param(("data: {\n\n", _DONE), id="an event cut in half"),
    ],
)
async def test_a_stream_that_is_not_whole_is_an_error(events: tuple[str, ...]) -> None:
    response = await _received(_stream(*events))
    with pytest.raises(Wrong):
        check(_order(stream=True), response)


async def test_a_refusal_is_an_error_and_says_why() -> None:
    response = await _received(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nfull")
    with pytest.raises(Wrong, match="503: full"):
        check(_order(stream=True), response)


async def test_a_connection_that_closes_early_is_an_error() -> None:
    caller = Caller()
    caller.connection_made(_NoNetwork())
    waiter = caller.ask(b"")
    caller.data_received(_stream(_OPENING)[:-5])
    caller.connection_lost(None)
    with pytest.raises(ConnectionError):
        await waiter
