"""
From the tensors of one Triton request to engine requests.

Decides how each input is read, the default of each that is absent, and the answer to each that this engine does not
compute: an error, never silence. Does not know Triton: tensors arrive as torch tensors with their leading batch axis.
Names and meaning: contract, section 2.1; rows of a batch: 2.3.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch

from .errors import EnqueueError
from .request import NO_END_ID, EngineRequest, LoraInput, PromptTable, SamplingParams, Wants
from .words import decode_words

# What an input means that is declared, as TensorRT-LLM declares it, and not computed.
NOT_COMPUTED = {
    "encoder_input_features": "the model is decoder-only",
    "encoder_output_lengths": "the model is decoder-only",
    "decoder_input_ids": "the model is decoder-only",
    "decoder_input_lengths": "the model is decoder-only",
    "draft_logits": "there is no speculative decoding",
    "draft_acceptance_threshold": "there is no speculative decoding",
    "cross_attention_mask": "the model has no cross attention",
    "skip_cross_attn_blocks": "the model has no cross attention",
    "mrope_rotary_cos_sin": "the model has no multimodal rotary embedding",
    "mrope_position_deltas": "the model has no multimodal rotary embedding",
    "context_phase_params": "there is no disaggregated serving",
    "retention_token_range_starts": "there is no KV retention policy",
    "retention_token_range_ends": "there is no KV retention policy",
    "retention_token_range_priorities": "there is no KV retention policy",
    "retention_token_range_durations_ms": "there is no KV retention policy",
    "retention_decode_priority": "there is no KV retention policy",
    "retention_decode_duration_ms": "there is no KV retention policy",
}
LOOKAHEAD = ("lookahead_window_size", "lookahead_ngram_size", "lookahead_verification_set_size")
GUIDED = ("guided_decoding_guide_type", "guided_decoding_guide")

# Read by nobody: TensorRT-LLM's backend never reads prompt_vocab_size and runtime_top_p_min, runtime_top_p_reset_ids
# means nothing without a decay, and the rest means nothing with one beam.
WITHOUT_EFFECT = (
    "pad_id",
    "prompt_vocab_size",
    "runtime_top_p_min",
    "runtime_top_p_reset_ids",
    "len_penalty",
    "early_stopping",
    "beam_search_diversity_rate",
)
CONTROL = ("stop", "streaming")

T = TypeVar("T", int, float)


@dataclass(frozen=True, eq=False)
class Inputs:
    """
    The inputs of one Triton request, by name.

    tensors  [batch, …]
    strings  names only: none of them is computed with, and the backend cannot read them safely (model.py)
    """

    tensors: Mapping[str, torch.Tensor]
    strings: frozenset[str] = frozenset()


def flag(inputs: Inputs, name: str) -> bool:
    """A boolean of the whole request, False when absent."""
    tensor = inputs.tensors.get(name)
    return tensor is not None and tensor.numel() > 0 and bool(tensor.reshape(-1)[0])


def read_requests(
    inputs: Inputs, *, exclude_input_default: bool, decoupled: bool, request_type: str | None = None
) -> list[EngineRequest]:
    """
    One engine request per row of the batch.

    exclude_input_default  the model's own parameter, where the request does not say

    Raises:
        EnqueueError: the form is wrong, or it asks for something that is not computed.
    """
    ids = inputs.tensors.get("input_ids")
    _refuse_not_computed(inputs, request_type)
    if ids is None:
        raise EnqueueError("input_ids or encoder_input_features is not present in the request.")
    if ids.dim() != 2:
        raise EnqueueError("Expected inputTokens tensors to have 2 dimensions")
    rows = ids.shape[0]
    if rows > 1 and not decoupled:
        raise EnqueueError("Batch size > 1 requires the tensorrt_llm backend to be using decoupled transaction policy")
    streaming = flag(inputs, "streaming")
    if streaming and not decoupled:
        raise EnqueueError("Streaming is only supported if model is deployed using decoupled mode.")
    for name, tensor in inputs.tensors.items():
        if tensor.dim() == 0 or (tensor.shape[0] != rows and name not in CONTROL):
            raise EnqueueError(f"Invalid size for tensor {name}: expected a batch of {rows}, got {list(tensor.shape)}")
    requests = [_Row(inputs, row, rows).request(streaming, exclude_input_default) for row in range(rows)]
    if not decoupled and requests[0].num_return_sequences > 1:
        raise EnqueueError("num_return_sequences > 1 is only supported if model is deployed using decoupled mode.")
    return requests


def _refuse_not_computed(inputs: Inputs, request_type: str | None) -> None:
    present = {name for name, tensor in inputs.tensors.items() if tensor.numel() > 0}
    for name, reason in NOT_COMPUTED.items():
        if name in present:
            raise EnqueueError(f"{name} is not supported by this engine: {reason}; leave it out")
    if "draft_input_ids" in present:
        length = inputs.tensors["draft_input_ids"].shape[-1]
        raise EnqueueError(f"Draft tokens length ({length}) exceeds maximum draft tokens length (0).")
    if present & set(LOOKAHEAD):
        raise EnqueueError(
            "Cannot set the request lookahead decoding configuration when model instance lookahead parameters are "
            "not set."
        )
    if request_type not in (None, "context_and_generation"):
        raise EnqueueError(f"request_type {request_type} is not supported: there is no disaggregated serving")


class _Row:
    """One row of the batch."""

    def __init__(self, inputs: Inputs, row: int, rows: int) -> None:
        self._inputs = inputs
        self._row = row
        self._rows = rows

    def request(self, streaming: bool, exclude_input_default: bool) -> EngineRequest:
        ids = self._ids()
        new_tokens = self._scalar("request_output_len", 0)
        if new_tokens < 1:
            raise EnqueueError(f"request_output_len ({new_tokens}) must be at least 1")
        decay = self._scalar("runtime_top_p_decay", 1.0)
        if decay != 1.0:
            raise EnqueueError(
                f"runtime_top_p_decay ({decay}) is not supported by this engine; leave it out or send 1.0"
            )
        bias = self._tensor("embedding_bias")
        return EngineRequest(
            input_ids=ids,
            max_new_tokens=new_tokens,
            end_id=self._scalar("end_id", NO_END_ID),
            sampling=self._sampling(),
            num_return_sequences=self._scalar("num_return_sequences", 1),
            beam_width=self._scalar("beam_width", 1),
            streaming=streaming,
            exclude_input_in_output=self._flag("exclude_input_in_output", exclude_input_default),
            stop_words=decode_words(self._list("stop_words_list")),
            bad_words=decode_words(self._list("bad_words_list")),
            embedding_bias=None if bias is None or bias.numel() == 0 else bias.float(),
            prompt_table=self._table(len(ids)),
            lora=self._lora(),
            wants=Wants(
                log_probs=self._flag("return_log_probs"),
                context_logits=self._flag("return_context_logits"),
                generation_logits=self._flag("return_generation_logits"),
                perf_metrics=self._flag("return_perf_metrics"),
                num_input_tokens=self._flag("return_num_input_tokens"),
                num_output_tokens=self._flag("return_num_output_tokens"),
            ),
            guided=not self._inputs.strings.isdisjoint(GUIDED),
        )

    def _ids(self) -> tuple[int, ...]:
        ids = self._list("input_ids")
        if self._rows > 1:  # padded to the longest row; a single row is taken whole, as TensorRT-LLM does
            length = self._scalar("input_lengths", 0)
            if not 0 <= length <= len(ids):
                raise EnqueueError(f"input_lengths ({length}) does not fit input_ids of {len(ids)} tokens")
            ids = ids[:length]
        return tuple(ids)

    def _sampling(self) -> SamplingParams:
        return SamplingParams(
            temperature=self._scalar("temperature", 1.0),
            top_k=self._scalar("runtime_top_k", 0),
            top_p=max(self._scalar("runtime_top_p", 0.0), 0.0),
            repetition_penalty=self._scalar("repetition_penalty", 1.0),
            presence_penalty=self._scalar("presence_penalty", 0.0),
            frequency_penalty=self._scalar("frequency_penalty", 0.0),
            min_tokens=self._scalar("min_tokens", 0),
            seed=self._seed(),
        )

    def _seed(self) -> int | None:
        values = self._unsigned("seed")
        return None if values is None else values[0]

    def _table(self, prompt_length: int) -> PromptTable | None:
        rows = self._tensor("prompt_embedding_table")
        if rows is None:
            return None
        extra_ids = self._unsigned("prompt_table_extra_ids")
        # A wrong length is dropped here, as TensorRT-LLM's backend drops it; the executor then misses them.
        fits = extra_ids is not None and len(extra_ids) == prompt_length
        return PromptTable(rows, extra_ids if fits else None)

    def _lora(self) -> LoraInput | None:
        task_id = self._unsigned("lora_task_id")
        weights, config = self._tensor("lora_weights"), self._tensor("lora_config")
        if task_id is None and weights is None and config is None:
            return None
        return LoraInput(None if task_id is None else task_id[0], weights, config)

    def _tensor(self, name: str) -> torch.Tensor | None:
        """This row, copied: the request's own memory goes away before the engine is done."""
        tensor = self._inputs.tensors.get(name)
        return None if tensor is None else tensor[self._row].clone()

    def _list(self, name: str) -> list[int]:
        tensor = self._inputs.tensors.get(name)
        if tensor is None:
            return []
        values: list[int] = tensor[self._row].reshape(-1).tolist()
        return values

    def _unsigned(self, name: str) -> tuple[int, ...] | None:
        """UINT64 values; torch has few operations on them, so they are read as signed and brought back."""
        tensor = self._inputs.tensors.get(name)
        if tensor is None:
            return None
        signed = tensor[self._row].reshape(-1).contiguous().view(torch.int64).tolist()
        return tuple(value % (1 << 64) for value in signed)

    def _scalar(self, name: str, default: T) -> T:
        tensor = self._inputs.tensors.get(name)
        if tensor is None:
            return default
        value = tensor[self._row]
        if value.numel() != 1:
            raise EnqueueError(f"Invalid size for tensor {name}")
        item: T = value.reshape(-1).tolist()[0]
        return item

    def _flag(self, name: str, default: bool = False) -> bool:
        tensor = self._inputs.tensors.get(name)
        return default if tensor is None else bool(tensor[self._row].reshape(-1)[0])
