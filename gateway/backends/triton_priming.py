"""
Sends an adapter's weights to Triton in a request for one token: the engine has no other way to be told of them.

Runs in a process that serves no callers: one send of 100 MB stalls every stream of its process.
"""

import asyncio
import secrets
from collections.abc import Mapping

from gateway.backends.triton_tensors import lora_with_weights, priming_request
from gateway.backends.triton_transport import TritonTransport
from gateway.domain.adapter import LoraAdapter
from gateway.domain.errors import EngineRefused
from gateway.domain.job import Endpoint

# The most that one gRPC message can carry, less room for the request's other fields.
_MOST_BYTES = 2**31 - 2**20


class TritonPrimer:
    """An AdapterPrimer over transports of its own."""

    def __init__(self, transports: Mapping[str, TritonTransport], timeout_s: float = 120.0) -> None:
        self._transports = transports
        self._timeout_s = timeout_s

    async def prime(self, endpoint: Endpoint, adapter: LoraAdapter) -> None:
        if adapter.rows * adapter.width * adapter.dtype.itemsize > _MOST_BYTES:
            raise EngineRefused("the adapter's weights are over 2 GiB and cannot travel in one message")
        message = await asyncio.to_thread(_message, adapter)
        stream = await self._transports[endpoint.name].infer(message, self._timeout_s)
        try:
            while await stream.read():
                pass
        finally:
            stream.cancel()


def _message(adapter: LoraAdapter) -> bytes:
    lora = lora_with_weights(adapter, adapter.weights.read_bytes(), adapter.config.read_bytes())
    return priming_request(lora, "p" + secrets.token_hex(16))
