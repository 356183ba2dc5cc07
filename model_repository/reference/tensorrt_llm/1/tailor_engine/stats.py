"""
The engine's load at one moment.

Decides what is counted, as TensorRT-LLM's metrics count it. Does not know metric names (metrics.py).
"""

from dataclasses import dataclass

from .kv_blocks import PoolStats


@dataclass(frozen=True)
class Stats:
    """
    active          sequences of fetched requests: running, or waiting for room in the KV cache
    scheduled       of these, those that were in the last step; context: of these, still reading their prompt
    queued          requests that are not yet fetched; TensorRT-LLM counts them nowhere
    context_tokens  prompt tokens of the last step
    """

    active: int
    max: int
    scheduled: int
    context: int
    queued: int
    context_tokens: int
    iteration: int
    tokens_per_block: int
    blocks: PoolStats

    @property
    def waiting(self) -> int:
        return self.active - self.scheduled
