"""
What tunes the base: engine tensors of one adapter, by reference.

Decides how the two kinds of tuning are named and where their bytes lie. Does not read those bytes, and does not know
how they were made (gateway/adapters) or how they travel (gateway/backends).
"""

from dataclasses import dataclass
from pathlib import Path

from gateway.domain.manifest import Dtype


@dataclass(frozen=True, slots=True)
class LoraAdapter:
    """
    A LoRA-family adapter as the engine takes it.

    `weights`: file of raw bytes, [rows, width] of `dtype`, row-major, no header.
    `config`: file of raw bytes, [rows, columns] int32: module id, layer, rank (and 1 for DoRA in a fourth column).
    `task_id`: 1 to 2^63 - 1, from the derived bytes, the engine and the isolation domain; never reused.
    """

    task_id: int
    rows: int
    width: int
    columns: int
    dtype: Dtype
    weights: Path
    config: Path


@dataclass(frozen=True, slots=True)
class PromptTable:
    """
    Virtual tokens as the engine takes them.

    `table`: file of raw bytes, [rows, hidden] of `dtype`, row-major, no header.
    `extra_id`: 1 to 2^63 - 1, from the same things as a task id; it keys the engine's KV reuse.
    """

    extra_id: int
    rows: int
    hidden: int
    dtype: Dtype
    table: Path
