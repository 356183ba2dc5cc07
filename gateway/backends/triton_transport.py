"""
Streams to Triton over gRPC: the port, and its first implementation on grpc.aio.

Decides how bytes travel: one HTTP/2 stream per request on a few shared connections, so that cancelling one request
touches no other. Does not know tensors' meaning. Messages are read with tritonclient's protobuf classes; its own client
is passed by, since it drops the parameters of a response and the identity of an error.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle
from typing import Protocol

import grpc
from tritonclient.grpc import service_pb2 as pb

from gateway.backends.triton_errors import engine_error
from gateway.domain.errors import BackendFailed, DeadlineExceeded, TargetUnavailable

_ENDS_WITHIN_S = 1.0
_SERVICE = "/inference.GRPCInferenceService/"
_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
)


class InferStream(Protocol):
    """One request's responses."""

    async def read(self) -> list[pb.ModelInferResponse]:
        """
        All responses that have arrived and were not read, at least one; empty at the end.

        Raises:
            BackendFailed: the engine reported an error, or the connection failed.
        """
        ...

    async def finish(self) -> None:
        """
        Read on to the end of a stream that has given its last response, which comes at once.

        Triton (2.51 at least) sometimes keeps a request for ever whose stream is cancelled just when it ends; then its
        model never unloads.
        """
        ...

    def cancel(self) -> None:
        """Stop the request in the engine, if it still runs. Never blocks; may be called at any time, repeatedly."""
        ...


class TritonTransport(Protocol):
    """A way to one Triton."""

    async def infer(self, request: bytes, timeout_s: float) -> InferStream:
        """Send one serialised ModelInferRequest; the engine is told to stop after `timeout_s`."""
        ...

    async def ready(self, model: str, timeout_s: float) -> bool:
        """Whether Triton says that the model is loaded. It does not say that tokens come."""
        ...

    async def close(self) -> None: ...


def _failure(error: grpc.aio.AioRpcError) -> BackendFailed:
    match error.code():
        case grpc.StatusCode.UNAVAILABLE:
            return TargetUnavailable(f"Triton cannot be reached: {error.details()}")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded("the engine did not finish in time")
        case _:
            return engine_error(str(error.details()))


class _GrpcStream:
    def __init__(self, call: grpc.aio.StreamStreamCall) -> None:
        self._call = call
        self._ended = False

    async def read(self) -> list[pb.ModelInferResponse]:
        if self._ended:
            return []
        try:
            message = await self._call.read()
        except grpc.aio.AioRpcError as error:
            self._ended = True
            raise _failure(error) from error
        if message is grpc.aio.EOF:
            self._ended = True
            return []
        if message.error_message:
            await self.finish()
            raise engine_error(message.error_message)
        return [message.infer_response]

    async def finish(self) -> None:
        self._ended = True
        with suppress(TimeoutError, grpc.aio.AioRpcError):
            async with asyncio.timeout(_ENDS_WITHIN_S):
                while await self._call.read() is not grpc.aio.EOF:
                    pass

    def cancel(self) -> None:
        self._call.cancel()


class GrpcTransport:
    """A TritonTransport on grpc.aio: `connections` channels in turn, so that a lost one takes few streams along."""

    def __init__(self, address: str, connections: int) -> None:
        self._channels: Sequence[grpc.aio.Channel] = [
            grpc.aio.insecure_channel(address, options=_OPTIONS) for _ in range(connections)
        ]
        self._infer = cycle(
            channel.stream_stream(
                _SERVICE + "ModelStreamInfer",
                request_serializer=None,
                response_deserializer=pb.ModelStreamInferResponse.FromString,
            )
            for channel in self._channels
        )
        self._ready = self._channels[0].unary_unary(
            _SERVICE + "ModelReady",
            request_serializer=pb.ModelReadyRequest.SerializeToString,
            response_deserializer=pb.ModelReadyResponse.FromString,
        )

    async def infer(self, request: bytes, timeout_s: float) -> InferStream:
        call = next(self._infer)(timeout=timeout_s)
        try:
            await call.write(request)
            await call.done_writing()
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from error
        except BaseException:
            call.cancel()
            raise
        return _GrpcStream(call)

    async def ready(self, model: str, timeout_s: float) -> bool:
        try:
            response = await self._ready(pb.ModelReadyRequest(name=model), timeout=timeout_s)
        except grpc.aio.AioRpcError:
            return False
        return bool(response.ready)

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()
