"""One request to the engine per stream, over tritonclient, as the engine's live tests need it."""

import queue
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

PATIENCE_S = 60
Arrays = Mapping[str, "np.ndarray[Any, Any]"]


@dataclass(frozen=True)
class Response:
    """One response: its tensors by name, its request's id, and whether it carried the FINAL flag."""

    tensors: dict[str, "np.ndarray[Any, Any]"]
    request_id: str
    final: bool

    @property
    def tokens(self) -> list[int]:
        if "output_ids" not in self.tensors:
            return []
        return [int(token) for token in self.tensors["output_ids"][0, 0]]


class EngineError(Exception):
    """The error text of a response."""


@dataclass(eq=False)
class Stream:
    """A stream of its own, because an error on a stream does not say whose it is."""

    url: str
    responses: "queue.Queue[Any]" = field(default_factory=queue.Queue)
    open: bool = False

    def __enter__(self) -> Self:
        self.client = grpcclient.InferenceServerClient(self.url)
        self.client.start_stream(lambda result, error: self.responses.put(error or result))
        return self

    def __exit__(self, *_: object) -> None:
        # Cancelled only while something is open: Triton 2.51 leaks a request that was refused and then cancelled, and
        # waits for it when it is told to stop.
        self.client.stop_stream(cancel_requests=self.open)
        self.client.close()

    def send(self, inputs: Arrays, request_id: str = "", outputs: tuple[str, ...] = ()) -> None:
        """Send one request; every array comes with its batch axis."""
        self.open = True
        tensors = []
        for name, array in inputs.items():
            tensor = grpcclient.InferInput(name, list(array.shape), datatype(array))
            tensor.set_data_from_numpy(array)
            tensors.append(tensor)
        self.client.async_stream_infer(
            "tensorrt_llm",
            tensors,
            request_id=request_id,
            outputs=[grpcclient.InferRequestedOutput(name) for name in outputs] or None,
            enable_empty_final_response=True,
        )

    def next(self) -> Response:
        """
        The next response.

        Raises:
            EngineError: it is an error.
        """
        got = self.responses.get(timeout=PATIENCE_S)
        if isinstance(got, InferenceServerException):
            self.open = False
            raise EngineError(got.message())
        message = got.get_response()
        final = message.parameters["triton_final_response"].bool_param
        self.open = not final
        tensors = {output.name: got.as_numpy(output.name) for output in message.outputs}
        return Response(tensors, message.id, final)

    def until_final(self) -> Iterator[Response]:
        while True:
            response = self.next()
            yield response
            if response.final:
                return


def datatype(array: "np.ndarray[Any, Any]") -> str:
    return "BF16" if array.dtype.name == "bfloat16" else str(np_to_triton_dtype(array.dtype))


def ask(url: str, inputs: Arrays, request_id: str = "", outputs: tuple[str, ...] = ()) -> list[Response]:
    """All responses to one request on a stream of its own."""
    with Stream(url) as stream:
        stream.send(inputs, request_id, outputs)
        return list(stream.until_final())


def tokens_of(responses: list[Response]) -> list[int]:
    return [token for response in responses for token in response.tokens]
