"""
Messages of Triton's ModelStreamInfer for the model `tensorrt_llm`: what a direct client sends, what a stand-in says.

Decides names, types and shapes, as Triton 2.51 with our reference engine writes them. Requests are made here a second
time, apart from the gateway's own, since a benchmark that shares the measured code cannot see its faults.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2 as pb

MODEL = "tensorrt_llm"
OUTPUTS = ("output_ids", "sequence_length")

Tensor = tuple[str, str, npt.NDArray[np.generic]]


def request_tensors(prompt_ids: Sequence[int], tokens: int, end_id: int) -> list[Tensor]:
    """A greedy request for exactly `tokens` tokens: name, Triton type and array with its batch axis of 1."""
    numbers = {
        "input_lengths": len(prompt_ids),
        "request_output_len": tokens,
        "end_id": end_id,
        "pad_id": end_id,
        "runtime_top_k": 1,
        "min_tokens": tokens,
    }
    return [
        ("input_ids", "INT32", np.array([prompt_ids], np.int32)),
        *((name, "INT32", np.array([[number]], np.int32)) for name, number in numbers.items()),
        ("streaming", "BOOL", np.array([[True]])),
    ]


def request(identifier: str, tensors: Sequence[Tensor]) -> bytes:
    """The tensors as one serialised ModelInferRequest."""
    message = pb.ModelInferRequest(model_name=MODEL, id=identifier)
    message.parameters["triton_enable_empty_final_response"].bool_param = True
    for name, kind, array in tensors:
        message.inputs.add(name=name, datatype=kind, shape=array.shape)
        message.raw_input_contents.append(array.tobytes())
    for name in OUTPUTS:
        message.outputs.add(name=name)
    return bytes(message.SerializeToString())


def asked(message: bytes) -> tuple[str, int] | None:
    """A request's id and the number of tokens it wants; None for a message without tensors, such as ModelReady's."""
    parsed = pb.ModelInferRequest.FromString(message)
    if not parsed.inputs:
        return None
    wanted = next(index for index, tensor in enumerate(parsed.inputs) if tensor.name == "request_output_len")
    return parsed.id, int.from_bytes(parsed.raw_input_contents[wanted], "little")


def response(identifier: str, ids: Sequence[int], *, final: bool) -> bytes:
    """One serialised ModelStreamInferResponse with the next tokens of an answer."""
    message = pb.ModelInferResponse(model_name=MODEL, model_version="1", id=identifier)
    message.parameters["triton_final_response"].bool_param = final
    message.outputs.add(name="output_ids", datatype="INT32", shape=(1, 1, len(ids)))
    message.outputs.add(name="sequence_length", datatype="INT32", shape=(1, 1))
    message.raw_output_contents.extend(
        (np.array(ids, np.int32).tobytes(), len(ids).to_bytes(4, "little")),
    )
    return bytes(pb.ModelStreamInferResponse(infer_response=message).SerializeToString())


@lru_cache(maxsize=4096)
def _around(id_length: int, ids: tuple[int, ...], final: bool) -> tuple[bytes, bytes, bytes]:
    """A DATA frame's length and kind, then what stands before and after the request's id."""
    stand_in = "\x7f" * id_length
    message = response(stand_in, ids, final=final)
    before, _, after = message.partition(stand_in.encode())
    prefix = b"\x00" + len(message).to_bytes(4, "big")
    return (len(message) + 5).to_bytes(3, "big") + b"\x00\x00", prefix + before, after


def response_frame(stream: int, identifier: bytes, ids: tuple[int, ...], *, final: bool) -> bytes:
    """The same as an HTTP/2 DATA frame, its unchanging parts made once."""
    head, before, after = _around(len(identifier), ids, final)
    return b"".join((head, stream.to_bytes(4, "big"), before, identifier, after))
