"""
The bytes of a request, read back with protobuf: names, types, shapes and contents as the engine's config declares them.
"""

import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from gateway.backends.triton_tensors import (
    NO_LORA,
    NO_VIRTUAL_TOKENS,
    Vocabulary,
    infer_request,
    lora_by_id,
    lora_with_weights,
    priming_request,
    read_response,
    virtual_tokens,
)
from gateway.domain.manifest import Dtype
from gateway.domain.request import SamplingParams
from tests.unit.domain.making import LORA, PROMPT, job, request

VOCABULARY = Vocabulary(908, (5,))
SIZES = {"INT32": 4, "UINT64": 8, "FP32": 4, "FP16": 2, "BF16": 2, "BOOL": 1}
NUMPY = {"INT32": "<i4", "UINT64": "<u8", "FP32": "<f4", "BOOL": "?"}


@dataclass(frozen=True)
class Tensor:
    datatype: str
    shape: tuple[int, ...]
    raw: bytes

    @property
    def values(self) -> list[float]:
        return np.frombuffer(self.raw, NUMPY[self.datatype]).tolist()


def parsed(data: bytes) -> tuple[pb.ModelInferRequest, dict[str, Tensor]]:
    """The message, and its inputs by name; every content must have the size that its shape says."""
    message = pb.ModelInferRequest.FromString(data)
    tensors = {}
    for declared, raw in zip(message.inputs, message.raw_input_contents, strict=True):
        assert len(raw) == SIZES[declared.datatype] * int(np.prod(declared.shape)), declared.name
        assert declared.name not in tensors
        tensors[declared.name] = Tensor(declared.datatype, tuple(declared.shape), raw)
    return message, tensors


def built(sampling: SamplingParams | None = None, vocabulary: Vocabulary = VOCABULARY, **changes: object):
    asked = request(sampling=sampling or SamplingParams(), **changes)
    return parsed(infer_request(job(asked), "r1", vocabulary, NO_VIRTUAL_TOKENS, NO_LORA))


def sent(sampling: SamplingParams | None = None, **changes: object) -> dict[str, tuple[str, list[float]]]:
    """What a request says beyond the eight scalars and the prompt."""
    _, tensors = built(sampling, **changes)
    always = {
        *("input_lengths", "request_output_len", "end_id", "pad_id", "runtime_top_k", "runtime_top_p"),
        *("temperature", "streaming", "input_ids", "seed"),
    }
    return {name: (tensor.datatype, tensor.values) for name, tensor in tensors.items() if name not in always}


def test_a_plain_request_has_the_engines_names_types_and_shapes():
    message, tensors = built()
    assert message.model_name == "tensorrt_llm"
    assert message.id == "r1"
    assert message.parameters["triton_enable_empty_final_response"].bool_param
    scalars = {
        name: (t.datatype, t.shape, t.values) for name, t in tensors.items() if name not in ("input_ids", "seed")
    }
    assert scalars == {
        "input_lengths": ("INT32", (1, 1), [3]),
        "request_output_len": ("INT32", (1, 1), [16]),
        "end_id": ("INT32", (1, 1), [5]),
        "pad_id": ("INT32", (1, 1), [5]),
        "runtime_top_k": ("INT32", (1, 1), [0]),
        "runtime_top_p": ("FP32", (1, 1), [1.0]),
        "temperature": ("FP32", (1, 1), [1.0]),
        "streaming": ("BOOL", (1, 1), [True]),
    }
    assert tensors["input_ids"] == Tensor("INT32", (1, 3), array("i", [1, 2, 3]).tobytes())
    assert (tensors["seed"].datatype, tensors["seed"].shape) == ("UINT64", (1, 1))
    assert [output.name for output in message.outputs] == ["output_ids", "sequence_length"]


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        pytest.param({"temperature": 0.0, "top_k": 40}, (1, 1.0, 1.0), id="temperature 0 takes the likeliest token"),
        pytest.param({"temperature": 0.7}, (0, 1.0, 0.7), id="a temperature goes as it is"),
        pytest.param({"top_p": 0.25, "top_k": 7}, (7, 0.25, 1.0), id="so do top_k and top_p"),
    ],
)
def test_how_the_next_token_is_chosen(sampling, expected):
    _, tensors = built(SamplingParams(**sampling))
    got = [tensors[name].values[0] for name in ("runtime_top_k", "runtime_top_p", "temperature")]
    assert got == pytest.approx(expected)


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        pytest.param({}, {}, id="what is neutral is not sent"),
        pytest.param({"repetition_penalty": 1.5}, {"repetition_penalty": ("FP32", [1.5])}, id="repetition penalty"),
        pytest.param({"presence_penalty": -0.5}, {"presence_penalty": ("FP32", [-0.5])}, id="presence penalty"),
        pytest.param({"frequency_penalty": 2.0}, {"frequency_penalty": ("FP32", [2.0])}, id="frequency penalty"),
        pytest.param({"min_tokens": 3}, {"min_tokens": ("INT32", [3])}, id="a least number of tokens"),
    ],
)
def test_what_is_sent_only_where_it_is_asked_for(sampling, expected):
    assert sent(SamplingParams(**sampling)) == expected


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        pytest.param({"seed": 7}, 7, id="a seed as it is"),
        pytest.param({"seed": 7, "temperature": 0.0}, 7, id="also where nothing is drawn"),
        pytest.param({"seed": -1}, 2**64 - 1, id="a negative one wrapped"),
        pytest.param({"seed": 2**63 - 1}, 2**63 - 1, id="the largest"),
    ],
)
def test_a_seed_of_the_callers(sampling, expected):
    _, tensors = built(SamplingParams(**sampling))
    assert tensors["seed"].values == [expected]


def test_a_request_without_a_seed_draws_its_own_and_a_greedy_one_needs_none():
    seeds = {built()[1]["seed"].raw for _ in range(20)}
    assert len(seeds) == 20
    assert "seed" not in built(SamplingParams(temperature=0.0))[1]


def test_a_bias_covers_the_whole_vocabulary():
    _, tensors = built(SamplingParams(logit_bias=((0, -100.0), (907, 2.5))))
    bias = tensors["embedding_bias"]
    assert (bias.datatype, bias.shape) == ("FP32", (1, 908))
    assert [(token, value) for token, value in enumerate(bias.values) if value] == [(0, -100.0), (907, 2.5)]


@pytest.mark.parametrize(
    ("eos", "end_id", "pad_id", "words"),
    [
        pytest.param((), -1, 0, None, id="none: the engine is told of none"),
        pytest.param((5,), 5, 5, None, id="one: it is the end id"),
        pytest.param((5, 9), 5, 5, [9, 1], id="two: the second is a stop word"),
        pytest.param((5, 9, 2), 5, 5, [9, 2, 1, 2], id="three: words of one token each, with their ends"),
    ],
)
def test_ids_that_end_an_answer(eos, end_id, pad_id, words):
    _, tensors = built(vocabulary=Vocabulary(908, eos))
    assert (tensors["end_id"].values, tensors["pad_id"].values) == ([end_id], [pad_id])
    if words is None:
        assert "stop_words_list" not in tensors
    else:
        assert tensors["stop_words_list"].shape == (1, 2, len(eos) - 1)
        assert tensors["stop_words_list"].values == words


def test_logprobs_are_asked_for_and_named_among_the_outputs():
    message, tensors = built(logprobs=True)
    assert tensors["return_log_probs"] == Tensor("BOOL", (1, 1), b"\x01")
    assert [output.name for output in message.outputs] == ["output_ids", "sequence_length", "output_log_probs"]


def test_several_answers_are_asked_for_and_told_apart():
    message, tensors = built(n=3)
    assert tensors["num_return_sequences"].values == [3]
    assert [output.name for output in message.outputs] == ["output_ids", "sequence_length", "sequence_index"]


def test_an_adapter_by_id_is_one_number():
    _, tensors = parsed(infer_request(job(), "r1", VOCABULARY, NO_VIRTUAL_TOKENS, lora_by_id(2**63 - 1)))
    assert tensors["lora_task_id"] == Tensor("UINT64", (1, 1), struct.pack("<Q", 2**63 - 1))
    assert "lora_weights" not in tensors


@pytest.mark.parametrize(("dtype", "wire"), [("float32", "FP32"), ("float16", "FP16"), ("bfloat16", "BF16")])
def test_an_adapter_with_its_weights(dtype, wire):
    adapter = replace(LORA, dtype=Dtype(dtype))
    weights = bytes(range(256)) * 2
    weights = weights[: adapter.rows * adapter.width * adapter.dtype.itemsize].ljust(
        adapter.rows * adapter.width * adapter.dtype.itemsize, b"\x07"
    )
    config = array("i", range(adapter.rows * adapter.columns)).tobytes()
    message, tensors = parsed(priming_request(lora_with_weights(adapter, weights, config), "p1"))
    assert tensors["lora_task_id"].values == [77]
    assert tensors["lora_weights"] == Tensor(wire, (1, 3, 40), weights)
    assert tensors["lora_config"] == Tensor("INT32", (1, 3, 4), config)
    assert message.id == "p1"
    assert [tensors[name].values for name in ("input_ids", "input_lengths", "request_output_len")] == [[0], [1], [1]]
    assert [tensors[name].values for name in ("end_id", "streaming")] == [[-1], [True]]


def test_virtual_tokens_stand_before_the_prompt_and_only_they_have_an_extra_id():
    table = bytes(range(256)) * 4
    virtual = virtual_tokens(PROMPT, table, 908)
    _, tensors = parsed(infer_request(job(), "r1", VOCABULARY, virtual, lora_by_id(7)))
    assert tensors["input_ids"].values == [908, 909, 1, 2, 3]
    assert tensors["input_lengths"].values == [5]
    assert tensors["prompt_embedding_table"] == Tensor("FP32", (1, 2, 128), table)
    assert tensors["prompt_vocab_size"].values == [2]
    assert tensors["prompt_table_extra_ids"].datatype == "UINT64"
    assert tensors["prompt_table_extra_ids"].shape == tensors["input_ids"].shape
    assert tensors["prompt_table_extra_ids"].values == [99, 99, 0, 0, 0]
    assert tensors["lora_task_id"].values == [7]


def test_everything_at_once_keeps_names_and_contents_in_step():
    sampling = SamplingParams(
        temperature=0.5, top_k=3, repetition_penalty=1.1, presence_penalty=0.1, frequency_penalty=0.2, min_tokens=1,
        seed=1, logit_bias=((3, 1.0),),
    )  # fmt: skip
    asked = request(sampling=sampling, n=2, logprobs=True)
    virtual = virtual_tokens(PROMPT, bytes(1024), 908)
    ids = [7] * 300
    _, tensors = parsed(
        infer_request(job(asked, prompt_ids=ids), "r" * 200, Vocabulary(908, (5, 6)), virtual, lora_by_id(1))
    )
    assert len(tensors) == 22
    assert tensors["input_ids"].values == [908, 909, *ids]
    assert tensors["lora_task_id"].values == [1]


def response(
    outputs: dict[str, bytes], *, final: bool | None = None, shapes: Sequence[int] = (1,)
) -> pb.ModelInferResponse:
    message = pb.ModelInferResponse(model_name="tensorrt_llm", id="r1")
    for name, raw in outputs.items():
        message.outputs.append(pb.ModelInferResponse.InferOutputTensor(name=name, datatype="INT32", shape=shapes))
        message.raw_output_contents.append(raw)
    if final is not None:
        message.parameters["triton_final_response"].bool_param = final
    return pb.ModelInferResponse.FromString(message.SerializeToString())


def ints(*numbers: int) -> bytes:
    return array("i", numbers).tobytes()


def floats(*numbers: float) -> bytes:
    return array("f", numbers).tobytes()


@pytest.mark.parametrize(
    ("outputs", "final", "expected"),
    [
        pytest.param(
            {"output_ids": ints(7), "sequence_length": ints(1)}, False, (0, [7], [], False), id="one token"
        ),
        pytest.param(
            {"output_ids": ints(7, 8, 9), "sequence_length": ints(3)}, None, (0, [7, 8, 9], [], False), id="several"
        ),
        pytest.param(
            {"output_ids": ints(7, -1, -1), "sequence_length": ints(1)}, True, (0, [7], [], True), id="padding is none"
        ),
        pytest.param(
            {"output_ids": ints(-1), "sequence_length": ints(0)}, True, (0, [], [], True), id="an end without tokens"
        ),
        pytest.param({}, True, (0, [], [], True), id="an empty final response"),
        pytest.param(
            {"sequence_index": ints(2), "sequence_length": ints(1), "output_ids": ints(7)},
            False,
            (2, [7], [], False),
            id="one of several answers, whatever the order of outputs",
        ),
        pytest.param(
            {"output_ids": ints(7), "sequence_length": ints(1), "output_log_probs": floats(-0.5)},
            False,
            (0, [7], [-0.5], False),
            id="the first logprob",
        ),
        pytest.param(
            {"output_ids": ints(8, 9), "sequence_length": ints(2), "output_log_probs": floats(-0.5, -1.0, -2.0)},
            False,
            (0, [8, 9], [-1.0, -2.0], False),
            id="of all logprobs so far the newest",
        ),
        pytest.param(
            {"output_ids": ints(), "sequence_length": ints(0), "output_log_probs": floats(-0.5)},
            True,
            (0, [], [], True),
            id="none for an end without tokens",
        ),
    ],
)  # fmt: skip
def test_what_a_response_says(outputs, final, expected):
    assert tuple(read_response(response(outputs, final=final))) == expected
