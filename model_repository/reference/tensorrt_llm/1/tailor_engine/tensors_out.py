"""
From what the engine says to the output tensors of one response.

Decides names, element types and shapes (contract, section 2.2); each has its leading batch axis of 1. Does not know
Triton nor when a response is sent.
"""

import torch

from .request import EngineRequest, PerfMetrics, SequenceOutput


def output_tensors(request: EngineRequest, output: SequenceOutput, batch_index: int | None) -> dict[str, torch.Tensor]:
    """
    One response's tensors by name.

    batch_index  the row of a batched request, None when it had one row
    """
    wants = request.wants
    tensors = {
        "output_ids": _int32(output.token_ids).view(1, 1, -1),
        "sequence_length": _scalar(len(output.token_ids)),
    }
    if output.cum_log_prob is not None:
        tensors["cum_log_probs"] = torch.tensor([[output.cum_log_prob]], dtype=torch.float32)
    if output.log_probs is not None:
        tensors["output_log_probs"] = torch.tensor(output.log_probs, dtype=torch.float32).view(1, 1, -1)
    if output.context_logits is not None:
        tensors["context_logits"] = output.context_logits.unsqueeze(0)
    if output.generation_logits is not None:
        tensors["generation_logits"] = output.generation_logits.unsqueeze(0).unsqueeze(0)
    if batch_index is not None:
        tensors["batch_index"] = _scalar(batch_index)
    if request.num_return_sequences > 1:
        tensors["sequence_index"] = _scalar(output.sequence_index)
    if output.perf is not None:
        tensors |= _perf(output.perf)
    if wants.num_input_tokens:
        tensors["num_input_tokens"] = _scalar(output.num_input_tokens)
    if wants.num_output_tokens:
        tensors["num_output_tokens"] = _scalar(len(output.token_ids))
    return tensors


def _perf(perf: PerfMetrics) -> dict[str, torch.Tensor]:
    blocks = {
        "kv_cache_alloc_new_blocks": perf.alloc_new_blocks,
        "kv_cache_reused_blocks": perf.reused_blocks,
        "kv_cache_alloc_total_blocks": perf.alloc_total_blocks,
        "total_accepted_draft_tokens": 0,
        "total_draft_tokens": 0,
    }
    instants = {
        "arrival_time_ns": perf.arrival_ns,
        "first_scheduled_time_ns": perf.first_scheduled_ns,
        "first_token_time_ns": perf.first_token_ns,
        "last_token_time_ns": perf.last_token_ns,
    }
    return {
        **{name: _scalar(value) for name, value in blocks.items()},
        **{name: torch.tensor([[value]], dtype=torch.int64) for name, value in instants.items()},
        "acceptance_rate": torch.zeros(1, 1),
    }


def _int32(values: list[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def _scalar(value: int) -> torch.Tensor:
    return torch.tensor([[value]], dtype=torch.int32)
