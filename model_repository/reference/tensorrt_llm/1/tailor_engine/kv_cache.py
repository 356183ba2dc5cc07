"""
The keys and values themselves.

Decides their layout: one tensor per engine, [layers, 2 * kv heads, tokens, head size], keys first, so that a head of a
contiguous extent is a contiguous matrix that attention reads in place. Does not know who owns what (kv_blocks.py).
"""

import torch

from .kv_blocks import Allocation


class KvCache:
    """Room for blocks * tokens_per_block tokens. Memory is only touched as far as it is used."""

    def __init__(
        self, layers: int, kv_heads: int, head_size: int, blocks: int, tokens_per_block: int, dtype: torch.dtype
    ) -> None:
        self.tokens_per_block = tokens_per_block
        # torch.empty leaves the pages to the system until they are written.
        self.data = torch.empty(layers, 2 * kv_heads, blocks * tokens_per_block, head_size, dtype=dtype)

    def prepare(self, allocation: Allocation) -> None:
        """Carry out the copies of an allocation: first the moves, then the reused prefix."""
        size = self.tokens_per_block
        # Slices of moves may overlap and reused blocks may lie in the new extent: every copy goes through a clone.
        reused = _gather(self.data, allocation.reused, size) if allocation.reused and not allocation.moves else None
        for move in allocation.moves:
            source = self.data[:, :, move.source * size : (move.source + move.count) * size].clone()
            self.data[:, :, move.target * size : (move.target + move.count) * size] = source
        if allocation.reused:
            if reused is None:
                reused = _gather(self.data, allocation.reused, size)
            start = allocation.extent.start * size
            self.data[:, :, start : start + reused.shape[2]] = reused


def _gather(data: torch.Tensor, blocks: tuple[int, ...], size: int) -> torch.Tensor:
    return torch.cat([data[:, :, block * size : (block + 1) * size] for block in blocks], dim=2)
