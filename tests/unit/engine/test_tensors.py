"""Triton's tensors in and out, without Triton."""

from pathlib import Path

import pytest
import torch
from tailor_engine.errors import EnqueueError
from tailor_engine.request import EngineRequest, PerfMetrics, SequenceOutput, Wants
from tailor_engine.tensors_in import CONTROL, GUIDED, LOOKAHEAD, NOT_COMPUTED, WITHOUT_EFFECT, Inputs, read_requests
from tailor_engine.tensors_out import output_tensors

TEMPLATE = Path(__file__).parents[3] / "model_repository" / "reference" / "tensorrt_llm" / "config.pbtxt"
MANDATORY = {
    "input_ids": torch.tensor([[4, 5, 6]], dtype=torch.int32),
    "input_lengths": torch.tensor([3], dtype=torch.int32),
    "request_output_len": torch.tensor([7], dtype=torch.int32),
}


def _read(
    tensors: dict[str, torch.Tensor], decoupled: bool = True, request_type: str | None = None
) -> list[EngineRequest]:
    inputs = Inputs({**MANDATORY, **tensors})
    return read_requests(inputs, exclude_input_default=False, decoupled=decoupled, request_type=request_type)


def _one(**tensors: torch.Tensor) -> EngineRequest:
    (request,) = _read(tensors)
    return request


def _int(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def test_what_is_absent_has_tensorrt_llms_default() -> None:
    request = _one()
    assert request.input_ids == (4, 5, 6)
    assert request.max_new_tokens == 7
    assert request.end_id == -1
    assert request.sampling.greedy
    assert request.sampling.seed is None
    assert request.num_return_sequences == 1
    assert (request.stop_words, request.bad_words, request.prompt_table, request.lora) == ((), (), None, None)
    assert not request.streaming
    assert not request.exclude_input_in_output


def test_every_value_arrives() -> None:
    request = _one(
        end_id=_int(2),
        num_return_sequences=_int(3),
        temperature=torch.tensor([0.5]),
        runtime_top_k=_int(9),
        runtime_top_p=torch.tensor([0.25]),
        repetition_penalty=torch.tensor([1.5]),
        presence_penalty=torch.tensor([0.75]),
        frequency_penalty=torch.tensor([0.125]),
        min_tokens=_int(4),
        seed=torch.tensor([(1 << 64) - 5], dtype=torch.uint64),
        streaming=torch.tensor([True]),
        exclude_input_in_output=torch.tensor([True]),
        stop_words_list=_int(8, 9, 2, -1).view(1, 2, 2),
        bad_words_list=_int(1, 1).view(1, 2, 1),
        embedding_bias=torch.ones(1, 11),
        return_log_probs=torch.tensor([True]),
        return_perf_metrics=torch.tensor([True]),
    )
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.5, 9, 0.25)
    assert (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty) == (1.5, 0.75, 0.125)
    assert (sampling.min_tokens, sampling.seed, request.end_id) == (4, (1 << 64) - 5, 2)
    assert request.num_return_sequences == 3
    assert (request.streaming, request.exclude_input_in_output) == (True, True)
    assert (request.stop_words, request.bad_words) == (((8, 9),), ((1,),))
    assert request.embedding_bias is not None
    assert request.embedding_bias.shape == (11,)
    assert request.wants == Wants(log_probs=True, perf_metrics=True)


def test_a_lora_and_a_table_arrive_in_one_request() -> None:
    request = _one(
        lora_task_id=torch.tensor([1 << 63], dtype=torch.uint64),
        lora_weights=torch.ones(1, 2, 5),
        lora_config=_int(1, 0, 2, 1, 1, 2).view(1, 2, 3),
        prompt_embedding_table=torch.ones(1, 4, 6),
        prompt_table_extra_ids=torch.tensor([[9, 9, 0]], dtype=torch.uint64),
        prompt_vocab_size=_int(4),
    )
    assert request.lora is not None
    assert request.lora.task_id == 1 << 63
    assert request.lora.weights is not None
    assert request.lora.config is not None
    assert (request.lora.weights.shape, request.lora.config.shape) == ((2, 5), (2, 3))
    assert request.prompt_table is not None
    assert request.prompt_table.rows.shape == (4, 6)
    assert request.prompt_table.extra_ids == (9, 9, 0)
    assert request.payload_bytes == 4 * (10 + 6 + 24)


def test_extra_ids_of_another_length_are_dropped() -> None:
    request = _one(
        prompt_embedding_table=torch.ones(1, 4, 6), prompt_table_extra_ids=torch.ones(1, 5, dtype=torch.int64)
    )
    assert request.prompt_table is not None
    assert request.prompt_table.extra_ids is None


def test_what_is_read_survives_the_request() -> None:
    weights = torch.ones(1, 2, 5)
    request = _one(
        lora_task_id=torch.ones(1, dtype=torch.int64), lora_weights=weights, lora_config=_int(1, 0, 2).view(1, 1, 3)
    )
    weights.zero_()
    assert request.lora is not None
    assert request.lora.weights is not None
    assert request.lora.weights.sum() == 10


def test_rows_of_a_batch_are_requests_of_their_own_cut_to_their_length() -> None:
    first, second = _read(
        {
            "input_ids": torch.tensor([[4, 5, 6], [7, 8, 0]], dtype=torch.int32),
            "input_lengths": _int(3, 2),
            "request_output_len": _int(7, 9),
            "seed": torch.tensor([1, 2], dtype=torch.int64),
        }
    )
    assert (first.input_ids, first.max_new_tokens, first.sampling.seed) == ((4, 5, 6), 7, 1)
    assert (second.input_ids, second.max_new_tokens, second.sampling.seed) == ((7, 8), 9, 2)


def test_one_row_is_taken_whole_whatever_its_length_says() -> None:
    assert _one(input_lengths=_int(1)).input_ids == (4, 5, 6)


@pytest.mark.parametrize("name", NOT_COMPUTED)
def test_what_is_not_computed_is_refused_by_name(name: str) -> None:
    with pytest.raises(EnqueueError, match=f"^{name} is not supported by this engine"):
        _read({name: torch.ones(1, 1)})


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        ({"draft_input_ids": _int(1, 2).view(1, 2)}, r"Draft tokens length \(2\) exceeds maximum draft tokens length"),
        ({"lookahead_window_size": _int(7)}, "Cannot set the request lookahead decoding configuration"),
        ({"runtime_top_p_decay": torch.tensor([0.9])}, "runtime_top_p_decay"),
        ({"request_output_len": _int(0)}, r"request_output_len \(0\) must be at least 1"),
        ({"temperature": torch.tensor([[0.5, 0.5]])}, "Invalid size for tensor temperature"),
        ({"temperature": torch.tensor([0.5, 0.5])}, "Invalid size for tensor temperature: expected a batch of 1"),
        ({"input_ids": _int(1, 2)}, "2 dimensions"),
        ({"stop_words_list": _int(1, 2, 3, -1).view(1, 2, 2)}, "out-of-bound offsets"),
        ({"bad_words_list": _int(1, 2, -1, 2).view(1, 2, 2)}, "additional -1s"),
    ],
)
def test_a_wrong_form_is_refused(tensors: dict[str, torch.Tensor], text: str) -> None:
    with pytest.raises(EnqueueError, match=text):
        _read(tensors)


def test_missing_ids_batches_and_streams_without_decoupling_and_disaggregation_are_refused() -> None:
    lengths = {name: tensor for name, tensor in MANDATORY.items() if name != "input_ids"}
    with pytest.raises(EnqueueError, match="input_ids or encoder_input_features is not present in the request"):
        read_requests(Inputs(lengths), exclude_input_default=False, decoupled=True)
    with pytest.raises(EnqueueError, match="Streaming is only supported if model is deployed using decoupled mode"):
        _read({"streaming": torch.tensor([True])}, decoupled=False)
    two = {name: tensor.repeat(2, *[1] * (tensor.dim() - 1)) for name, tensor in MANDATORY.items()}
    with pytest.raises(EnqueueError, match="Batch size > 1 requires the tensorrt_llm backend to be using decoupled"):
        _read(two, decoupled=False)
    with pytest.raises(EnqueueError, match="num_return_sequences > 1 is only supported"):
        _read({"num_return_sequences": _int(2)}, decoupled=False)
    with pytest.raises(EnqueueError, match="request_type context_only"):
        _read({}, request_type="context_only")


def test_a_guide_of_any_type_is_noticed() -> None:
    inputs = Inputs(MANDATORY, frozenset({"guided_decoding_guide_type"}))
    (request,) = read_requests(inputs, exclude_input_default=False, decoupled=True)
    assert request.guided


def test_every_declared_input_is_read_refused_or_known_to_mean_nothing() -> None:
    """Nothing that config.pbtxt lets in may be ignored by oversight."""
    declared = {
        line.split('"')[1]
        for line in TEMPLATE.read_text().partition("output [")[0].splitlines()
        if line.startswith("  { name:")
    }
    read = set(
        (Path(__file__).parents[3] / "model_repository/reference/tensorrt_llm/1/tailor_engine/tensors_in.py")
        .read_text()
        .split('"')[1::2]
    )
    known = {*NOT_COMPUTED, *LOOKAHEAD, *GUIDED, *WITHOUT_EFFECT, *CONTROL}
    assert len(declared) == 62
    assert declared <= read
    assert known <= declared


def test_outputs_have_tensorrt_llms_names_types_and_shapes() -> None:
    request = EngineRequest(
        (1, 2),
        4,
        num_return_sequences=2,
        wants=Wants(True, True, True, True, num_input_tokens=True, num_output_tokens=True),
    )
    output = SequenceOutput(
        sequence_index=1,
        token_ids=[5, 6, 7],
        finish_reason=None,
        num_input_tokens=2,
        cum_log_prob=-1.5,
        log_probs=[-0.5, -0.5, -0.5],
        context_logits=torch.zeros(2, 9),
        generation_logits=torch.zeros(3, 9),
        perf=PerfMetrics(3, 1, 4, 10, 20, 30, 40),
    )
    tensors = output_tensors(request, output, batch_index=4)
    shapes = {name: (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")) for name, tensor in tensors.items()}
    assert shapes == {
        "output_ids": ((1, 1, 3), "int32"),
        "sequence_length": ((1, 1), "int32"),
        "cum_log_probs": ((1, 1), "float32"),
        "output_log_probs": ((1, 1, 3), "float32"),
        "context_logits": ((1, 2, 9), "float32"),
        "generation_logits": ((1, 1, 3, 9), "float32"),
        "batch_index": ((1, 1), "int32"),
        "sequence_index": ((1, 1), "int32"),
        "kv_cache_alloc_new_blocks": ((1, 1), "int32"),
        "kv_cache_reused_blocks": ((1, 1), "int32"),
        "kv_cache_alloc_total_blocks": ((1, 1), "int32"),
        "arrival_time_ns": ((1, 1), "int64"),
        "first_scheduled_time_ns": ((1, 1), "int64"),
        "first_token_time_ns": ((1, 1), "int64"),
        "last_token_time_ns": ((1, 1), "int64"),
        "acceptance_rate": ((1, 1), "float32"),
        "total_accepted_draft_tokens": ((1, 1), "int32"),
        "total_draft_tokens": ((1, 1), "int32"),
        "num_input_tokens": ((1, 1), "int32"),
        "num_output_tokens": ((1, 1), "int32"),
    }
    assert tensors["batch_index"].item() == 4
    assert tensors["sequence_index"].item() == 1
    declared = TEMPLATE.read_text().partition("output [")[2]
    assert all(f'name: "{name}"' in declared for name in tensors)


def test_without_wishes_only_the_tokens_are_sent() -> None:
    output = SequenceOutput(0, [], None, 2)
    assert set(output_tensors(EngineRequest((1, 2), 4), output, None)) == {"output_ids", "sequence_length"}
    assert output_tensors(EngineRequest((1, 2), 4), output, None)["output_ids"].shape == (1, 1, 0)
