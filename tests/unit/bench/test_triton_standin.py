"""
The stand-in for Triton says what the real one says, to the gateway's own transport, however much and however often.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.standins.http2 import Connection
from bench.standins.messages import MODEL, request, request_tensors, response
from bench.standins.pace import Pace
from bench.standins.triton import WHOLE_TOKENS, Engine
from gateway.backends.triton_tensors import TokenChunk, read_response
from gateway.backends.triton_transport import GrpcTransport

_IDS = tuple(range(100, 164))

# What Triton 2.51 sent for one token of the reference engine: token 615, more to come.
_REAL = bytes.fromhex(
    "1295010a0c74656e736f7272745f6c6c6d1201311a21726162616261626162616261626162616261626162616261626162616261626162221b0a"
    "15747269746f6e5f66696e616c5f726573706f6e7365120208002a180a0a6f75747075745f6964731205494e5433321a030101012a1c0a0f7365"
    "7175656e63655f6c656e6774681205494e5433321a020101320467020000320401000000"
)


@asynccontextmanager
async def _standin(interval_s: float) -> AsyncIterator[tuple[GrpcTransport, Pace]]:
    pace = Pace(interval_s)
    engine = Engine(_IDS, pace)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(engine.take, engine.over), "127.0.0.1", 0)
    steps = loop.create_task(pace.run())
    transport = GrpcTransport(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", 2)
    try:
        yield transport, pace
    finally:
        await transport.close()
        steps.cancel()
        server.close()


async def _read(transport: GrpcTransport, tokens: int, number: int = 0) -> list[TokenChunk]:
    message = request(f"r{number:032x}", request_tensors([1, 2, 3], tokens, 5))
    stream = await transport.infer(message, 30.0)
    chunks = []
    while responses := await stream.read():
        chunks += [read_response(item) for item in responses]
    return chunks


def test_a_message_is_the_real_tritons_to_the_byte() -> None:
    assert response("r" + "ab" * 16, [615], final=False) == _REAL


async def test_it_is_ready_as_triton_is() -> None:
    async with _standin(1.0) as (transport, _):
        assert await transport.ready(MODEL, timeout_s=10.0)


async def test_a_short_answer_comes_whole_in_one_message() -> None:
    async with _standin(60.0) as (transport, _):
        assert await _read(transport, WHOLE_TOKENS) == [TokenChunk(0, list(_IDS[:WHOLE_TOKENS]), [], True)]


async def test_streams_together_each_get_all_their_tokens_one_by_one() -> None:
    async with _standin(0.001) as (transport, _):
        streams = await asyncio.gather(*(_read(transport, 40, number) for number in range(64)))
    for chunks in streams:
        assert [chunk.ids for chunk in chunks] == [[token] for token in _IDS[:40]]
        assert [chunk.final for chunk in chunks] == [False] * 39 + [True]


async def test_a_cancelled_stream_leaves_the_pace() -> None:
    async with _standin(0.001) as (transport, pace):
        stream = await transport.infer(request("r1", request_tensors([1], 1_000_000, 5)), 60.0)
        await stream.read()
        stream.cancel()
        await asyncio.wait_for(pace.emptied(), 10)
