"""
Who owns which blocks of the KV cache, and which blocks can be read again.

Decides allocation, eviction and reuse. Does not know tensors: it hands out block numbers and says what has to be
copied. A sequence gets one contiguous extent of blocks for its whole life, because attention on a CPU reads a
contiguous extent in place while a scattered one would have to be gathered for every layer and step
(docs/decisions/0001). Shared prefixes are therefore copied, not referenced.
"""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

Digest = bytes


@dataclass(frozen=True)
class Move:
    """Blocks [source, source + count) must be copied to [target, target + count); target < source."""

    source: int
    target: int
    count: int


@dataclass(eq=False)
class Extent:
    """Blocks [start, start + count), owned by one sequence. `start` changes when the pool is compacted."""

    start: int
    count: int


@dataclass(eq=False)
class _Block:
    owner: Extent | None = None
    digest: Digest | None = None
    last_used: int = 0


@dataclass
class PoolStats:
    """Blocks, now; `reused` counts up. Cached blocks that nobody owns count as free, as in TensorRT-LLM."""

    max: int
    free: int
    used: int
    reused: int


@dataclass(frozen=True)
class Allocation:
    """
    extent  where the sequence's keys and values go
    moves   to carry out first, in this order
    reused  blocks to copy to the beginning of the extent, in order, before anything is written to it
    """

    extent: Extent
    moves: tuple[Move, ...] = ()
    reused: tuple[int, ...] = ()


@dataclass
class BlockPool:
    """A pool of `size` blocks. last_used is a counter, not a clock."""

    size: int
    _blocks: list[_Block] = field(init=False)
    _index: dict[Digest, int] = field(default_factory=dict)
    _clock: int = 0
    _used: int = 0
    _reused: int = 0

    def __post_init__(self) -> None:
        self._blocks = [_Block() for _ in range(self.size)]

    def stats(self) -> PoolStats:
        return PoolStats(self.size, self.size - self._used, self._used, self._reused)

    def allocate(self, count: int, prefix: Sequence[Digest] = ()) -> Allocation | None:
        """
        An extent of `count` blocks, or None when too few are free now.

        prefix: digests of the blocks that the sequence begins with; as many leading ones as are known are reused.
        Raises nothing; a request that could never fit has to be refused before it comes here.
        """
        if count > self.size - self._used:
            return None
        moves: tuple[Move, ...] = ()
        start = self._best_window(count)
        if start is None:
            moves = self._compact()
            start = self._used
        reused = self._known(prefix)
        self._clock += 1
        for block in reused:
            self._blocks[block].last_used = self._clock
        extent = Extent(start, count)
        for index in range(start, start + count):
            self._forget(index)
            self._blocks[index].owner = extent
        self._used += count
        self._reused += len(reused)
        return Allocation(extent, moves, tuple(reused))

    def publish(self, extent: Extent, digests: Sequence[Digest]) -> None:
        """Make the first blocks of an extent, now completely written, known by their digests."""
        self._clock += 1
        for offset, digest in enumerate(digests):
            block = self._blocks[extent.start + offset]
            if block.digest is None and digest not in self._index:
                block.digest = digest
                block.last_used = self._clock
                self._index[digest] = extent.start + offset

    def release(self, extent: Extent) -> None:
        """Give an extent back. Published blocks can be read again until their room is needed."""
        self._clock += 1
        for index in range(extent.start, extent.start + extent.count):
            self._blocks[index].owner = None
            self._blocks[index].last_used = self._clock
        self._used -= extent.count

    def _known(self, prefix: Sequence[Digest]) -> list[int]:
        found: list[int] = []
        for digest in prefix:
            index = self._index.get(digest)
            if index is None:
                break
            found.append(index)
        return found

    def _forget(self, index: int) -> None:
        digest = self._blocks[index].digest
        if digest is not None:
            del self._index[digest]
            self._blocks[index].digest = None

    def _best_window(self, count: int) -> int | None:
        """The window without owners that costs least: fewest cached blocks, then the longest unused."""
        cached = list(accumulate((block.digest is not None for block in self._blocks), initial=0))
        candidates: dict[int, list[int]] = {}
        run = 0
        for index, block in enumerate(self._blocks):
            run = 0 if block.owner is not None else run + 1
            if run >= count:
                start = index - count + 1
                candidates.setdefault(cached[index + 1] - cached[start], []).append(start)
        if not candidates:
            return None
        fewest = min(candidates)
        if fewest == 0:
            return candidates[0][0]
        return min(
            candidates[fewest], key=lambda start: max(block.last_used for block in self._blocks[start : start + count])
        )

    def _compact(self) -> tuple[Move, ...]:
        """Push all owned extents to the low end; cached blocks that nobody owns are lost. Rare."""
        moves: list[Move] = []
        packed: list[_Block] = []
        index = 0
        while index < self.size:
            extent = self._blocks[index].owner
            if extent is None:
                self._forget(index)
                index += 1
                continue
            target = len(packed)
            packed += self._blocks[index : index + extent.count]
            if target != extent.start:
                moves.append(Move(extent.start, target, extent.count))
                extent.start = target
            index += extent.count
        self._blocks = packed + [_Block() for _ in range(self.size - len(packed))]
        self._index = {block.digest: place for place, block in enumerate(packed) if block.digest is not None}
        return tuple(moves)


def prefix_digests(
    tokens: Sequence[int], extra_ids: Sequence[int] | None, lora_id: int | None, tokens_per_block: int
) -> list[Digest]:
    """
    One digest per full block of a sequence.

    A digest covers everything up to the end of its block: token ids, their extra ids (missing ones are 0) and the LoRA
    id, so that blocks are never shared between adapters or prompt tables. Cryptographic, because a collision would show
    one tenant another one's prompt.
    """
    parent = b"base" if lora_id is None else b"lora" + struct.pack("<Q", lora_id)
    extras = extra_ids or ()
    digests: list[Digest] = []
    for start in range(0, len(tokens) - tokens_per_block + 1, tokens_per_block):
        end = start + tokens_per_block
        part = list(extras[start:end])
        part += [0] * (tokens_per_block - len(part))
        content = struct.pack(f"<{tokens_per_block}q{tokens_per_block}Q", *tokens[start:end], *part)
        parent = hashlib.blake2b(parent + content, digest_size=16).digest()
        digests.append(parent)
    return digests
