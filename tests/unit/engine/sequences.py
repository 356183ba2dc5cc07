"""Sequences as the executor would make them, for tests of the parts that only look at them."""

import torch
from tailor_engine.adapter import Adapter
from tailor_engine.request import EngineRequest
from tailor_engine.sequence import Job, Sequence


class Patient:
    """A caller that stays."""

    def is_cancelled(self) -> bool:
        return False


def sequence(
    request: EngineRequest,
    *,
    produced: tuple[int, ...] = (),
    seed: int = 0,
    adapter: Adapter | None = None,
    vocab_size: int | None = None,
) -> Sequence:
    """One sequence that has produced some tokens already; with vocab_size it counts them, as penalties need."""
    made = Sequence(
        job=Job(1, request, Patient(), 0),
        index=0,
        seed=seed,
        max_new_tokens=request.max_new_tokens,
        adapter=adapter,
        tokens=[*request.input_ids, *produced],
        prompt_length=len(request.input_ids),
        prompt_digests=[],
    )
    if vocab_size is not None:
        made.counts = torch.bincount(torch.tensor(made.tokens), minlength=vocab_size).to(torch.int32)
    return made
