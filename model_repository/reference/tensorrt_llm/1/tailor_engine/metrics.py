"""
TensorRT-LLM's metrics out of the engine's load.

Decides names, labels and values (contract, section 8). Does not know Triton (triton_metrics.py publishes them). All are
gauges. Those that only make sense for a GPU or for speculative decoding are left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from .stats import Stats

REQUESTS = "nv_trt_llm_request_metrics"
KV_BLOCKS = "nv_trt_llm_kv_cache_block_metrics"
INFLIGHT = "nv_trt_llm_inflight_batcher_metrics"
GENERAL = "nv_trt_llm_general_metrics"

FAMILIES = {
    REQUESTS: ("TRT LLM request metrics", "request_type"),
    KV_BLOCKS: ("TRT LLM KV cache block metrics", "kv_cache_block_type"),
    INFLIGHT: ("TRT LLM inflight_batcher-specific metrics", "inflight_batcher_specific_metric"),
    GENERAL: ("General TRT LLM metrics", "general_type"),
}


@dataclass(frozen=True)
class Reading:
    """One label value of one family, and its value now."""

    family: str
    label: str
    value: float


def readings(stats: Stats, timestamp_s: float) -> Iterator[Reading]:
    """Every metric, always all of them, so that nothing is ever a gap."""
    blocks = stats.blocks
    yield Reading(REQUESTS, "active", stats.active)
    yield Reading(REQUESTS, "max", stats.max)
    yield Reading(REQUESTS, "scheduled", stats.scheduled)
    yield Reading(REQUESTS, "context", stats.context)
    yield Reading(REQUESTS, "waiting", stats.waiting)
    yield Reading(KV_BLOCKS, "max", blocks.max)
    yield Reading(KV_BLOCKS, "free", blocks.free)
    yield Reading(KV_BLOCKS, "used", blocks.used)
    yield Reading(KV_BLOCKS, "tokens_per", stats.tokens_per_block)
    yield Reading(KV_BLOCKS, "reused", blocks.reused)
    yield Reading(KV_BLOCKS, "fraction", blocks.used / blocks.max)
    yield Reading(INFLIGHT, "total_context_tokens", stats.context_tokens)
    yield Reading(INFLIGHT, "generation_requests", stats.scheduled - stats.context)
    yield Reading(INFLIGHT, "micro_batch_id", 0)
    yield Reading(INFLIGHT, "paused_requests", 0)
    yield Reading(GENERAL, "iteration_counter", stats.iteration)
    yield Reading(GENERAL, "timestamp", timestamp_s)
