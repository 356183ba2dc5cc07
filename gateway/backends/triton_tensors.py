"""
A request as named tensors, and named tensors as token ids: the bytes of TensorRT-LLM's in-flight batcher, in one place.

Decides every tensor's name, type and shape. Does not know gRPC, endpoints or text. Messages are built by joining
protobuf fragments, since a repeated field may be split over fragments: what never changes is serialised once.

Source: TensorRT-LLM 1.2.1, triton_backend, all_models/inflight_batcher_llm/tensorrt_llm/config.pbtxt.
"""

import random
import struct
from array import array
from functools import lru_cache
from typing import NamedTuple

from tritonclient.grpc import service_pb2 as pb

from gateway.domain.adapter import LoraAdapter, PromptTable
from gateway.domain.job import Job

MODEL = "tensorrt_llm"

_SCALARS = (
    ("input_lengths", "INT32"),
    ("request_output_len", "INT32"),
    ("end_id", "INT32"),
    ("pad_id", "INT32"),
    ("runtime_top_k", "INT32"),
    ("runtime_top_p", "FP32"),
    ("temperature", "FP32"),
    ("streaming", "BOOL"),
)
# One raw_input_contents entry for each scalar: tag 7 (length-delimited), length, little-endian value.
_RAW = b"\x3a"
_SCALAR_BYTES = struct.Struct("<" + "2si" * 5 + "2sf" * 2 + "2s?")
_INT, _BOOL = _RAW + b"\x04", _RAW + b"\x01"


class TokenChunk(NamedTuple):
    """New tokens of answer `sequence`. `logprobs`: none, or one for each id. `final`: the whole request has ended."""

    sequence: int
    ids: list[int]
    logprobs: list[float]
    final: bool


class Vocabulary(NamedTuple):
    """An engine's: ids from `size` on address rows of a prompt table; the first of `eos_ids` is its end id."""

    size: int
    eos_ids: tuple[int, ...]


class Fragment(NamedTuple):
    """Some tensors of a request as protobuf: their descriptors, and their contents in the same order."""

    inputs: bytes
    contents: bytes


class VirtualTokens(NamedTuple):
    """A prompt table made ready: `ids` (int32 bytes) stand before the prompt, `extra_id` keys the engine's KV reuse."""

    table: Fragment
    ids: bytes
    rows: int
    extra_id: int


NO_LORA = Fragment(b"", b"")
NO_VIRTUAL_TOKENS = VirtualTokens(Fragment(b"", b""), b"", 0, 0)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _raw(*parts: bytes) -> bytes:
    """One raw_input_contents entry."""
    return b"".join((_RAW, _varint(sum(map(len, parts))), *parts))


@lru_cache(maxsize=8192)
def _input(name: str, datatype: str, *shape: int) -> bytes:
    tensor = pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    return bytes(pb.ModelInferRequest(inputs=[tensor]).SerializeToString())


def _outputs(*names: str) -> bytes:
    outputs = [pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in names]
    return bytes(pb.ModelInferRequest(outputs=outputs).SerializeToString())


def _prefix() -> bytes:
    # Without this flag a request that ends with no tokens left (cancelled, refused) would end in silence.
    request = pb.ModelInferRequest(model_name=MODEL)
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    return bytes(request.SerializeToString()) + b"".join(_input(name, kind, 1, 1) for name, kind in _SCALARS)


_PREFIX = _prefix()
_TOKENS_OUT = _outputs("output_ids", "sequence_length")
_LOGPROBS_OUT = _outputs("output_ids", "sequence_length", "output_log_probs")
_INDEX_OUT = _outputs("sequence_index")


def lora_by_id(task_id: int) -> Fragment:
    """Descriptor and content that select an adapter the engine already holds: lora_task_id [1, 1] uint64."""
    return Fragment(_input("lora_task_id", "UINT64", 1, 1), _raw(struct.pack("<Q", task_id)))


def lora_with_weights(adapter: LoraAdapter, weights: bytes, config: bytes) -> Fragment:
    """
    Descriptors and contents that hand an adapter over.

    Shapes, after Triton's leading batch axis of 1: lora_weights [rows, width] of the engine's type; lora_config
    [rows, columns] int32.
    """
    names, contents = lora_by_id(adapter.task_id)
    names += _input("lora_weights", adapter.dtype.triton, 1, adapter.rows, adapter.width)
    names += _input("lora_config", "INT32", 1, adapter.rows, adapter.columns)
    return Fragment(names, b"".join((contents, _raw(weights), _raw(config))))


def virtual_tokens(prompt: PromptTable, table: bytes, vocab_size: int) -> VirtualTokens:
    """
    A prompt table as prompt_embedding_table [1, rows, hidden], addressed by the ids from the vocabulary's end on.

    `table`: the bytes of the prompt's file. They go with every request, so this is made once and kept.
    """
    names = _input("prompt_embedding_table", prompt.dtype.triton, 1, prompt.rows, prompt.hidden)
    names += _input("prompt_vocab_size", "INT32", 1, 1)
    fragment = Fragment(names, _raw(table) + _raw(struct.pack("<i", prompt.rows)))
    ids = array("i", range(vocab_size, vocab_size + prompt.rows)).tobytes()
    return VirtualTokens(fragment, ids, prompt.rows, prompt.extra_id)


def infer_request(job: Job, engine_id: str, vocabulary: Vocabulary, virtual: VirtualTokens, lora: Fragment) -> bytes:
    """
    A serialised ModelInferRequest that streams a job's answers.

    `engine_id` names this one attempt. Shapes carry Triton's batch axis of 1: input_ids [1, tokens] int32, virtual ids
    first; prompt_table_extra_ids [1, tokens] uint64, 0 for every token of the caller.
    """
    request, sampling = job.request, job.request.sampling
    eos_ids, length = vocabulary.eos_ids, virtual.rows + len(job.prompt_ids)
    greedy = sampling.temperature == 0
    end_id = eos_ids[0] if eos_ids else -1
    scalars = _SCALAR_BYTES.pack(
        *(_INT, length, _INT, job.max_tokens, _INT, end_id, _INT, max(end_id, 0)),
        *(_INT, 1 if greedy else sampling.top_k),
        # An engine given neither top_k nor top_p decodes greedily: "everything" has to be said.
        *(_INT, sampling.top_p, _INT, 1.0 if greedy else sampling.temperature, _BOOL, True),
    )
    names = [_PREFIX, b"\x1a", _varint(len(engine_id)), engine_id.encode(), _input("input_ids", "INT32", 1, length)]
    contents = [scalars, _raw(virtual.ids, array("i", job.prompt_ids).tobytes())]

    def add(name: str, datatype: str, value: bytes, *shape: int) -> None:
        names.append(_input(name, datatype, *(shape or (1, 1))))
        contents.append(_raw(value))

    if virtual.rows:
        names.append(virtual.table.inputs)
        contents.append(virtual.table.contents)
        extra = array("Q", [virtual.extra_id]) * virtual.rows + array("Q", [0]) * len(job.prompt_ids)
        add("prompt_table_extra_ids", "UINT64", extra.tobytes(), 1, length)
    names.append(lora.inputs)
    contents.append(lora.contents)
    for name, value, neutral in (
        ("repetition_penalty", sampling.repetition_penalty, 1.0),
        ("presence_penalty", sampling.presence_penalty, 0.0),
        ("frequency_penalty", sampling.frequency_penalty, 0.0),
    ):
        if value != neutral:
            add(name, "FP32", struct.pack("<f", value))
    if sampling.min_tokens:
        add("min_tokens", "INT32", struct.pack("<i", sampling.min_tokens))
    if not greedy or sampling.seed is not None:
        # Without a seed of its own every request would draw from the engine's same default.
        seed = random.getrandbits(63) if sampling.seed is None else sampling.seed & 0xFFFF_FFFF_FFFF_FFFF
        add("seed", "UINT64", struct.pack("<Q", seed))
    if sampling.logit_bias:
        bias = array("f", bytes(4 * vocabulary.size))
        for token, addend in sampling.logit_bias:
            bias[token] = addend
        add("embedding_bias", "FP32", bias.tobytes(), 1, vocabulary.size)
    if len(eos_ids) > 1:
        # The engine knows one end id; the others travel as stop words of one token each.
        others = eos_ids[1:]
        words = array("i", [*others, *range(1, len(others) + 1)])
        add("stop_words_list", "INT32", words.tobytes(), 1, 2, len(others))
    if request.logprobs:
        add("return_log_probs", "BOOL", b"\x01")
    outputs = _LOGPROBS_OUT if request.logprobs else _TOKENS_OUT
    if request.n > 1:
        add("num_return_sequences", "INT32", struct.pack("<i", request.n))
        outputs += _INDEX_OUT
    return b"".join((*names, outputs, *contents))


def priming_request(lora: Fragment, engine_id: str) -> bytes:
    """A serialised request for one token that makes the engine keep an adapter: it has no call for that alone."""
    scalars = _SCALAR_BYTES.pack(*(_INT, 1, _INT, 1, _INT, -1, _INT, 0, _INT, 1), *(_INT, 1.0, _INT, 1.0, _BOOL, True))
    ids = _input("input_ids", "INT32", 1, 1)
    head = (_PREFIX, b"\x1a", _varint(len(engine_id)), engine_id.encode(), ids, lora.inputs, _TOKENS_OUT)
    return b"".join((*head, scalars, _raw(bytes(4)), lora.contents))


def read_response(response: pb.ModelInferResponse) -> TokenChunk:
    """
    The tokens of one streamed response.

    output_ids [1, 1, length] int32 is padded with -1 beyond sequence_length [1, 1]. output_log_probs [1, 1, all so far]
    float32 repeats what earlier responses had: its tail belongs to these ids.
    """
    sequence, ids, count, logprobs = 0, array("i"), -1, array("f")
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        match output.name:
            case "output_ids":
                ids.frombytes(raw)
            case "sequence_length":
                count = int.from_bytes(raw[:4], "little")
            case "sequence_index":
                sequence = int.from_bytes(raw[:4], "little")
            case "output_log_probs":
                logprobs.frombytes(raw)
    final = response.parameters["triton_final_response"].bool_param if response.parameters else False
    new = ids.tolist() if count < 0 else ids[:count].tolist()
    return TokenChunk(sequence, new, logprobs[len(logprobs) - len(new) :].tolist() if new else [], final)
