"""
One returned sequence while it lives in the engine.

Decides nothing on its own: it is the state that scheduler, decoder, sampler and executor share. A request with
num_return_sequences n becomes n sequences.
"""

from dataclasses import dataclass, field
from typing import Protocol

import torch

from .adapter import Adapter
from .kv_blocks import Digest, Extent
from .request import EngineRequest, FinishReason


class Caller(Protocol):
    """Whoever waits for the answers of one request."""

    def is_cancelled(self) -> bool:
        """Whether the caller has left. Asked from the engine's thread, every cancellation_check_period_ms."""
        ...


@dataclass(eq=False)
class Job:
    """One request in the executor: its number, its caller, and its sequences once it was fetched."""

    number: int
    request: EngineRequest
    caller: Caller
    arrival_ns: int
    next_poll_ns: int = 0
    stopped: bool = False
    sequences: list["Sequence"] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        return all(sequence.finish_reason is not None for sequence in self.sequences)


@dataclass(eq=False)
class Sequence:
    """
    tokens        prompt and completion, end id excluded
    written       how many leading tokens have their keys and values in the cache
    sent          how many completion tokens the caller already has
    log_probs     one per completion token, only when asked for
    """

    job: Job
    index: int
    seed: int
    max_new_tokens: int
    adapter: Adapter | None
    tokens: list[int]
    prompt_length: int
    prompt_digests: list[Digest]
    extent: Extent | None = None
    written: int = 0
    sent: int = 0
    finish_reason: FinishReason | None = None
    log_probs: list[float] = field(default_factory=list)
    context_logits: list[torch.Tensor] = field(default_factory=list)
    generation_logits: list[torch.Tensor] = field(default_factory=list)
    counts: torch.Tensor | None = None
    reused_blocks: int = 0
    first_scheduled_ns: int = 0
    first_token_ns: int = 0
    last_token_ns: int = 0

    @property
    def request(self) -> EngineRequest:
        return self.job.request

    @property
    def produced(self) -> int:
        """Completion tokens so far."""
        return len(self.tokens) - self.prompt_length

    @property
    def in_prefill(self) -> bool:
        return self.written < self.prompt_length
