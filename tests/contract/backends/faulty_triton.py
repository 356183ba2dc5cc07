"""
A gRPC server in Triton's place that fails in ways a real one cannot be made to: by a script for each request.

Speaks Triton's own protobuf messages. Only for failures; what a working engine does is tested on the real one.
"""

import asyncio
from array import array
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
from tritonclient.grpc import service_pb2 as pb

Answer = Callable[[pb.ModelInferRequest], AsyncIterator[pb.ModelStreamInferResponse]]


def tokens(*ids: int, final: bool = False) -> pb.ModelStreamInferResponse:
    response = pb.ModelInferResponse(model_name="tensorrt_llm")
    for name, values in (("output_ids", ids), ("sequence_length", (len(ids),))):
        response.outputs.append(pb.ModelInferResponse.InferOutputTensor(name=name, datatype="INT32", shape=[1, 1]))
        response.raw_output_contents.append(array("i", values).tobytes())
    response.parameters["triton_final_response"].bool_param = final
    return pb.ModelStreamInferResponse(infer_response=response)


def error(text: str) -> pb.ModelStreamInferResponse:
    return pb.ModelStreamInferResponse(error_message=text)


class Abort(Exception):
    """Ends the call with a status instead of a message."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code, self.details = code, details


@dataclass
class FaultyTriton:
    """`answer` plays each request; `seen` holds them all; `left` counts callers that left before the end."""

    address: str
    seen: list[pb.ModelInferRequest] = field(default_factory=list)
    left: int = 0

    def weights_sent(self) -> int:
        return sum(any(tensor.name == "lora_weights" for tensor in request.inputs) for request in self.seen)


@asynccontextmanager
async def faulty_triton(answer: Answer) -> AsyncIterator[FaultyTriton]:
    server = grpc.aio.server()
    triton = FaultyTriton("")

    async def stream(
        requests: AsyncIterator[pb.ModelInferRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        try:
            async for request in requests:
                triton.seen.append(request)
                async for response in answer(request):
                    yield response
        except Abort as abort:
            await context.abort(abort.code, abort.details)
        except asyncio.CancelledError:
            triton.left += 1
            raise

    handler = grpc.stream_stream_rpc_method_handler(
        stream,
        request_deserializer=pb.ModelInferRequest.FromString,
        response_serializer=pb.ModelStreamInferResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelStreamInfer": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    triton.address = f"127.0.0.1:{port}"
    await server.start()
    try:
        yield triton
    finally:
        await server.stop(None)
