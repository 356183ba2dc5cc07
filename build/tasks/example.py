"""
What a training or held-out example is, and which side of the split it falls on.

Decides: an example's shape, the split by content, and how many distinct examples are drawn from a seed.
Does not know: any task's words, any model, any tokenizer.
"""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Side(Enum):
    """
    Which side of the split a generator is asked for.

    NEW_PHRASINGS: sentences that training never had, around words that it never had. Only the generators with word
    lists for it have that side; those that split by digest do not.
    """

    TRAINING = "training"
    HELD_OUT = "held-out"
    NEW_PHRASINGS = "new-phrasings"


@dataclass(frozen=True, slots=True)
class Example:
    """One user message and the answer that is right for it, both without any template around them."""

    prompt: str
    answer: str


@dataclass(frozen=True, slots=True)
class Task:
    """A named generator of examples, with the instruction that asks a base model for the same thing in words."""

    name: str
    instruction: str
    draw: Callable[[random.Random, Side], Example]


def side_of(prompt: str) -> Side:
    """
    The side a prompt belongs to, by its digest alone: one prompt in eight is held out.

    By content and not by position, so that no seed, order or number of draws can move a prompt across.
    """
    digest = hashlib.sha256(prompt.encode()).digest()
    return Side.HELD_OUT if digest[0] % 8 == 0 else Side.TRAINING


def by_digest(draw: Callable[[random.Random], Example]) -> Callable[[random.Random, Side], Example]:
    """Make a generator that knows nothing of sides draw from one of them, by drawing again until it fits."""

    def draw_from(rng: random.Random, side: Side) -> Example:
        while True:
            example = draw(rng)
            if side_of(example.prompt) is side:
                return example

    return draw_from


def examples(task: Task, count: int, *, seed: int, side: Side, distinct: bool = True) -> list[Example]:
    """
    `count` examples of one side; the same seed gives the same list.

    Raises:
        ValueError: with `distinct`, when the task has too few different prompts on that side.
    """
    rng = random.Random(f"{task.name}/{side.value}/{seed}")
    found: list[Example] = []
    seen: set[str] = set()
    for _ in range(count * 200):
        if len(found) == count:
            return found
        example = task.draw(rng, side)
        if distinct and example.prompt in seen:
            continue
        seen.add(example.prompt)
        found.append(example)
    if len(found) < count:
        raise ValueError(
            f"task {task.name!r} gave only {len(found)} distinct {side.value} prompts, {count} were asked for"
        )
    return found
