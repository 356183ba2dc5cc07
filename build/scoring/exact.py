"""
Exact-match scores of demo adapters and profiles on their held-out sets.

Decides: what is compared (whole answers, character by character) and how a score is written down.
Does not know: how answers come about (plain_peft.py, or a running gateway).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from build.tasks.example import Example


@dataclass(frozen=True, slots=True)
class Score:
    """How many of how many held-out answers were right to the character."""

    right: int
    total: int

    @property
    def share(self) -> float:
        """Between 0 and 1."""
        return self.right / self.total

    def __str__(self) -> str:
        return f"{self.right}/{self.total}"


@dataclass(frozen=True, slots=True)
class AdapterScores:
    """One adapter or profile beside its base: on the bare prompts, and the base with the instruction written out."""

    name: str
    held_out_set: str
    method: str
    trainable_parameters: int
    file_bytes: int
    base_bare: Score
    base_instructed: Score
    adapted: Score


def exact_match(answers: Sequence[str], rows: Sequence[Example]) -> Score:
    """Compare answers with the held-out rows they belong to."""
    right = sum(answer == row.answer for answer, row in zip(answers, rows, strict=True))
    return Score(right, len(rows))


def write_scores(path: Path, rows: Sequence[AdapterScores]) -> None:
    """Write scores as JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=2) + b"\n")


def read_scores(path: Path) -> list[AdapterScores]:
    """Read what `write_scores` wrote; empty where there is no file."""
    return msgspec.json.decode(path.read_bytes(), type=list[AdapterScores]) if path.is_file() else []
