"""
Who runs in the next step, and how many prompt tokens each may read.

Decides admission (first come, first served; only when prompt and all new tokens fit, so nothing is ever evicted half
way: TensorRT-LLM's guaranteed_no_evict) and the shares of a step. Does not know tensors, time or callers.
"""

from collections import deque
from dataclasses import dataclass, field

from .kv_blocks import Allocation, BlockPool
from .sequence import Sequence


@dataclass(frozen=True)
class SchedulerLimits:
    """
    max_sequences         sequences that run at once
    prefill_chunk_tokens  prompt tokens read per step while others decode: the pause every other stream notices
    max_num_tokens        prompt tokens read per step while nobody decodes
    """

    max_sequences: int
    tokens_per_block: int
    prefill_chunk_tokens: int
    max_num_tokens: int


@dataclass(frozen=True)
class Share:
    """Tokens [start, end) of a sequence go through the model in this step."""

    sequence: Sequence
    start: int
    end: int

    @property
    def samples(self) -> bool:
        """Whether the last of these tokens is the sequence's last: then it gets a next one."""
        return self.end == len(self.sequence.tokens)


@dataclass
class Scheduler:
    """Sequences that wait for room and sequences that run."""

    limits: SchedulerLimits
    pool: BlockPool
    waiting: deque[Sequence] = field(default_factory=deque)
    running: list[Sequence] = field(default_factory=list)

    def blocks_needed(self, sequence: Sequence) -> int:
        tokens = sequence.prompt_length + sequence.max_new_tokens
        return -(-tokens // self.limits.tokens_per_block)

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def admit(self) -> list[tuple[Sequence, Allocation]]:
        """Give room to as many waiting sequences as fit, in order. The copies of each allocation are still to do."""
        admitted: list[tuple[Sequence, Allocation]] = []
        while self.waiting and len(self.running) < self.limits.max_sequences:
            sequence = self.waiting[0]
            # The last prompt token is always computed: its logits give the first new token.
            reusable = (sequence.prompt_length - 1) // self.limits.tokens_per_block
            allocation = self.pool.allocate(self.blocks_needed(sequence), sequence.prompt_digests[:reusable])
            if allocation is None:
                break
            self.waiting.popleft()
            sequence.extent = allocation.extent
            sequence.reused_blocks = len(allocation.reused)
            sequence.written = len(allocation.reused) * self.limits.tokens_per_block
            self.running.append(sequence)
            admitted.append((sequence, allocation))
            if allocation.moves or allocation.reused:
                break  # its copies must be done before anything else is allocated over their sources
        return admitted

    def shares(self) -> list[Share]:
        """
        What each running sequence contributes to the next step.

        Every decoding sequence gets its one token; prompts share what is left, in order of arrival. Shares of one
        adapter stand next to each other.
        """
        decoding = [sequence for sequence in self.running if not sequence.in_prefill]
        budget = self.limits.prefill_chunk_tokens if decoding else self.limits.max_num_tokens
        shares = [Share(sequence, sequence.written, len(sequence.tokens)) for sequence in decoding]
        for sequence in self.running:
            if sequence.in_prefill and budget > 0:
                end = min(sequence.prompt_length, sequence.written + budget)
                budget -= end - sequence.written
                shares.append(Share(sequence, sequence.written, end))
        shares.sort(key=lambda share: -1 if share.sequence.adapter is None else share.sequence.adapter.task_id)
        return shares

    def remove(self, sequence: Sequence) -> None:
        """Take a finished or cancelled sequence out and give its room back."""
        if sequence.extent is None:
            self.waiting.remove(sequence)
            return
        self.running.remove(sequence)
        self.pool.release(sequence.extent)
        sequence.extent = None
