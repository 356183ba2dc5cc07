"""
A direct client of Triton, in two kinds: tritonclient's asyncio client as its users have it, and the transport that the
gateway itself speaks through, alone.

Decides how each reads an answer's tokens and checks them. Prompts are tokenised before the clock starts: that is the
gateway's work, not a direct client's.

    python -m bench.callers.direct tritonclient|transport CONTROL_SOCKET CHECKPOINT
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Protocol

import uvloop
from tritonclient.grpc.aio import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from bench import control
from bench.callers.loop import Answered, Wrong, closed_loop
from bench.callers.order import Order, Tally
from bench.standins.messages import MODEL, OUTPUTS, Tensor, request, request_tensors
from gateway.backends.triton_tensors import read_response
from gateway.backends.triton_transport import GrpcTransport
from gateway.domain.errors import BackendFailed
from gateway.domain.request import Message
from gateway.tokens.tokenizer import BaseTokenizer

_CONNECTIONS = 4
"""Of the transport: what a gateway's configuration has by default."""


class Reader(Protocol):
    """A way to ask Triton."""

    async def read(self, identifier: str, tensors: Sequence[Tensor]) -> tuple[list[int], float]:
        """
        All ids of one answer, and when the first of them came (time.perf_counter).

        Raises:
            Wrong: Triton reported an error.
        """
        ...

    async def close(self) -> None: ...


class TritonclientReader:
    """tritonclient.grpc.aio: one client, a stream for each request."""

    def __init__(self, address: str) -> None:
        self._client = InferenceServerClient(address)
        self._outputs = [InferRequestedOutput(name) for name in OUTPUTS]

    async def read(self, identifier: str, tensors: Sequence[Tensor]) -> tuple[list[int], float]:
        inputs = []
        for name, kind, array in tensors:
            tensor = InferInput(name, list(array.shape), kind)
            tensor.set_data_from_numpy(array)
            inputs.append(tensor)

        async def requests() -> AsyncIterator[dict[str, object]]:
            yield {"model_name": MODEL, "inputs": inputs, "outputs": self._outputs, "request_id": identifier}

        ids: list[int] = []
        first = 0.0
        try:
            async for result, error in self._client.stream_infer(requests()):
                if error is not None:
                    raise Wrong(str(error))
                count = int(result.as_numpy("sequence_length")[0, 0])
                ids += result.as_numpy("output_ids")[0, 0, :count].tolist()
                first = first or time.perf_counter()
        except InferenceServerException as error:
            raise Wrong(str(error)) from error
        return ids, first

    async def close(self) -> None:
        await self._client.close()


class TransportReader:
    """The gateway's own transport and its reading of a response."""

    def __init__(self, address: str) -> None:
        self._transport = GrpcTransport(address, _CONNECTIONS)

    async def read(self, identifier: str, tensors: Sequence[Tensor]) -> tuple[list[int], float]:
        ids: list[int] = []
        first = 0.0
        try:
            stream = await self._transport.infer(request(identifier, tensors), 120.0)
            while chunks := [read_response(response) for response in await stream.read()]:
                first = first or time.perf_counter()
                for chunk in chunks:
                    ids += chunk.ids
        except BackendFailed as error:
            raise Wrong(f"{type(error).__name__}: {error}") from error
        return ids, first

    async def close(self) -> None:
        await self._transport.close()


READERS: dict[str, Callable[[str], Reader]] = {"tritonclient": TritonclientReader, "transport": TransportReader}


class Direct:
    """Carries out orders with one kind of reader, its connections kept between them."""

    def __init__(self, kind: str, checkpoint: Path) -> None:
        self._kind = READERS[kind]
        self._codec = BaseTokenizer.load(checkpoint)
        self._readers: dict[int, Reader] = {}

    async def carry_out(self, order: Order) -> Tally:
        reader = self._readers.get(order.port)
        if reader is None:
            reader = self._readers[order.port] = self._kind(f"127.0.0.1:{order.port}")
        codec, end_id = self._codec, self._codec.eos_ids[0]
        prompts = [codec.encode_chat([Message(turn.role, turn.content) for turn in chat]) for chat in order.chats]

        async def ask(me: int, number: int) -> Answered:
            tensors = request_tensors(prompts[number % len(prompts)], order.tokens, end_id)
            # As long as the gateway's own ids: Triton repeats them in every message.
            ids, first = await reader.read(f"r{number:032x}", tensors)
            text = codec.detokenizer().feed(ids) if order.text is not None else None
            if len(ids) != order.tokens or text != order.text:
                raise Wrong(f"{len(ids)} tokens, {text!r} instead of {order.tokens} tokens")
            return Answered(len(ids), first)

        return await closed_loop(order, ask)


if __name__ == "__main__":
    # As each is used: tritonclient's examples on asyncio's own loop, the gateway on uvloop.
    run = asyncio.run if sys.argv[1] == "tritonclient" else uvloop.run
    run(control.serve(Path(sys.argv[2]), Order, Direct(sys.argv[1], Path(sys.argv[3])).carry_out))
