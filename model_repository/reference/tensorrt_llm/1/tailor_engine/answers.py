"""
What callers are told.

Decides the content of one answer: the delta or the whole, with or without the prompt. Does not know tensors on the wire
(tensors_out.py) nor when an answer is due.
"""

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import torch

from .request import EngineRequest, PerfMetrics, SequenceOutput
from .sequence import Caller, Job, Sequence


@dataclass(frozen=True, eq=False)
class Delivery:
    """
    One thing to tell one caller.

    output  content, or None
    error   the text of a failure, or None
    final   nothing follows for this request
    """

    caller: Caller
    request: EngineRequest
    output: SequenceOutput | None
    error: str | None
    final: bool


def content(sequence: Sequence, *, final: bool, total_blocks: int, vocab_size: int) -> Delivery:
    """Everything new that the sequence's caller has not been told; it counts as told from here on."""
    job = sequence.job
    output = _output(sequence, total_blocks, vocab_size)
    return Delivery(job.caller, job.request, output, None, final)


def failure(job: Job, text: str) -> Delivery:
    """The request failed and nothing follows."""
    return Delivery(job.caller, job.request, None, text, True)


def ending(job: Job) -> Delivery:
    """Nothing follows, and there is nothing to say."""
    return Delivery(job.caller, job.request, None, None, True)


def _output(sequence: Sequence, total_blocks: int, vocab_size: int) -> SequenceOutput:
    request, wants = sequence.request, sequence.request.wants
    start = sequence.prompt_length + (sequence.sent if request.streaming else 0)
    if not request.streaming and not request.exclude_input_in_output:
        start = 0
    log_probs = list(sequence.log_probs) if wants.log_probs else None
    output = SequenceOutput(
        sequence_index=sequence.index,
        token_ids=sequence.tokens[start:],
        finish_reason=sequence.finish_reason,
        num_input_tokens=sequence.prompt_length,
        cum_log_prob=None if log_probs is None else sum(log_probs),
        log_probs=log_probs,
        context_logits=_context_logits(sequence, vocab_size) if wants.context_logits else None,
        generation_logits=_stacked(sequence.generation_logits, vocab_size) if wants.generation_logits else None,
        perf=_perf(sequence, total_blocks) if wants.perf_metrics else None,
    )
    sequence.sent = sequence.produced
    if request.streaming:
        sequence.generation_logits.clear()
    return output


def _context_logits(sequence: Sequence, vocab_size: int) -> torch.Tensor:
    """Joined once and kept, because TensorRT-LLM sends them with every response of a stream."""
    if len(sequence.context_logits) > 1:
        sequence.context_logits = [torch.cat(sequence.context_logits)]
    return sequence.context_logits[0] if sequence.context_logits else torch.empty(0, vocab_size)


def _stacked(rows: Seq[torch.Tensor], vocab_size: int) -> torch.Tensor:
    return torch.stack(list(rows)) if rows else torch.empty(0, vocab_size)


def _perf(sequence: Sequence, total_blocks: int) -> PerfMetrics:
    return PerfMetrics(
        alloc_new_blocks=total_blocks - sequence.reused_blocks,
        reused_blocks=sequence.reused_blocks,
        alloc_total_blocks=total_blocks,
        arrival_ns=sequence.job.arrival_ns,
        first_scheduled_ns=sequence.first_scheduled_ns,
        first_token_ns=sequence.first_token_ns,
        last_token_ns=sequence.last_token_ns,
    )
