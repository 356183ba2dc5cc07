"""
The chats that callers send: seeded, of the tiny base's own words, no two alike in one run.

Decides their sizes. Does not know who sends them.
"""

import random
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import msgspec

from gateway.local.layout import REPOSITORY

_HELD_OUT = REPOSITORY / "build" / "tiny" / "heldout"
_LONG_CHARACTERS = 800


class ChatTurn(msgspec.Struct, frozen=True):
    role: str
    content: str


class _Example(msgspec.Struct, frozen=True):
    messages: tuple[ChatTurn, ...]


def held_out(task: str) -> list[tuple[ChatTurn, ...]]:
    """The held-out chats of one demo task, as its adapter was trained to read them."""
    return [example.messages for example in _examples(_HELD_OUT / f"{task}.jsonl")]


def long_chat(seed: int, number: int) -> tuple[ChatTurn, ...]:
    """A system and a user message of about 0.8 kB together, another for each number."""
    draw = random.Random(f"{seed}/{number}")
    texts = _texts()
    parts = [f"ticket {draw.randrange(10**6)} ."]
    while sum(map(len, parts)) < _LONG_CHARACTERS:
        parts.append(draw.choice(texts))
    cut = len(parts) // 4
    return ChatTurn("system", " ".join(parts[:cut])), ChatTurn("user", " ".join(parts[cut:]))


def chats(seed: int, task: str | None, first: int, count: int) -> list[tuple[ChatTurn, ...]]:
    """`count` chats from number `first` on: long ones, or those of a demo task in a seeded order."""
    if task is None:
        return [long_chat(seed, number) for number in range(first, first + count)]
    known = held_out(task)
    random.Random(seed).shuffle(known)
    return [known[number % len(known)] for number in range(first, first + count)]


@lru_cache(maxsize=1)
def _texts() -> Sequence[str]:
    files = sorted(_HELD_OUT.glob("*.jsonl"))
    return [example.messages[-1].content for file in files for example in _examples(file)]


def _examples(file: Path) -> list[_Example]:
    decoder = msgspec.json.Decoder(_Example)
    return [decoder.decode(line) for line in file.read_bytes().splitlines() if line]
