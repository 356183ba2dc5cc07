"""
One request as the executor takes it, and what comes back.

Decides which values exist and their defaults. Does not know the tensors they travel in (tensors_in.py, tensors_out.py)
nor how they are carried out. Everything here is already valid in form; what depends on the engine is checked by
validation.py.
"""

from dataclasses import dataclass, field
from enum import StrEnum

import torch

NO_END_ID = -1


@dataclass(frozen=True)
class SamplingParams:
    """
    How the next token is picked.

    top_k 0 and top_p 0 mean unset. As in TensorRT-LLM, temperature 0 is greedy, and so is a request that sets neither
    top_k nor top_p, whatever its temperature. seed None is a fresh one.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    min_tokens: int = 0
    seed: int | None = None

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0 or self.top_k == 1 or (self.top_k == 0 and self.top_p <= 0.0)

    @property
    def penalised(self) -> bool:
        return self.repetition_penalty != 1.0 or self.presence_penalty != 0.0 or self.frequency_penalty != 0.0


@dataclass(frozen=True, eq=False)
class LoraInput:
    """
    weights  [rows, width]     the adapter's element type, or None when only the id was sent
    config   [rows, 3 or 4]    int32: module id, layer, rank, is_dora
    """

    task_id: int | None
    weights: torch.Tensor | None = None
    config: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class PromptTable:
    """
    rows       [virtual tokens, hidden]
    extra_ids  one per prompt token, or None when they were absent or of another length
    """

    rows: torch.Tensor
    extra_ids: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Wants:
    """Which outputs were asked for beside the tokens."""

    log_probs: bool = False
    context_logits: bool = False
    generation_logits: bool = False
    perf_metrics: bool = False
    num_input_tokens: bool = False
    num_output_tokens: bool = False


@dataclass(frozen=True, eq=False)
class EngineRequest:
    """One row of one Triton request. Ids at or above the vocabulary size select rows of `prompt_table`."""

    input_ids: tuple[int, ...]
    max_new_tokens: int
    end_id: int = NO_END_ID
    sampling: SamplingParams = field(default_factory=SamplingParams)
    num_return_sequences: int = 1
    beam_width: int = 1
    streaming: bool = False
    exclude_input_in_output: bool = False
    stop_words: tuple[tuple[int, ...], ...] = ()
    bad_words: tuple[tuple[int, ...], ...] = ()
    embedding_bias: torch.Tensor | None = None
    prompt_table: PromptTable | None = None
    lora: LoraInput | None = None
    wants: Wants = field(default_factory=Wants)
    guided: bool = False

    @property
    def payload_bytes(self) -> int:
        """Bytes of weights and tables held while the request waits."""
        tensors = [self.embedding_bias]
        if self.prompt_table is not None:
            tensors.append(self.prompt_table.rows)
        if self.lora is not None:
            tensors += [self.lora.weights, self.lora.config]
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)


class FinishReason(StrEnum):
    """Why a sequence ended. Never leaves the engine: TensorRT-LLM's backend has no output for it."""

    END_ID = "end_id"
    STOP_WORDS = "stop_words"
    LENGTH = "length"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class PerfMetrics:
    """Blocks, and instants in nanoseconds of a steady clock: only differences mean anything."""

    alloc_new_blocks: int
    reused_blocks: int
    alloc_total_blocks: int
    arrival_ns: int
    first_scheduled_ns: int
    first_token_ns: int
    last_token_ns: int


@dataclass(frozen=True, eq=False)
class SequenceOutput:
    """
    One response's content for one returned sequence.

    token_ids          the delta when streaming, else all; never the end id
    log_probs          of every completion token so far (cumulative), only when asked for
    context_logits     [prompt, vocabulary]
    generation_logits  [tokens of this response's completion part, vocabulary]
    """

    sequence_index: int
    token_ids: list[int]
    finish_reason: FinishReason | None
    num_input_tokens: int
    cum_log_prob: float | None = None
    log_probs: list[float] | None = None
    context_logits: torch.Tensor | None = None
    generation_logits: torch.Tensor | None = None
    perf: PerfMetrics | None = None
