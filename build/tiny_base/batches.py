"""
The batches that the tiny base is pre-trained on.

Decides: phase 1 (random ids: repeat them, or look up what follows one), phase 2 (the tasks with and without their
instruction), and the weight of each token in the loss.
Does not know: the model and the optimiser.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer

from build.tasks.example import Side
from build.tasks.tiny_tasks import BASE_TASKS, BASE_WEIGHTS, NO_INSTRUCTION
from build.tiny_base.tokenizer import ASSISTANT, END, PAD, SPECIALS, START, USER, chat_prompt

PROMPT_WEIGHT = 0.02
BARE_SHARE = 0.12
ABSENT_SHARE = 0.4
SUCCESSORS = 3


@dataclass(frozen=True, slots=True)
class WeightedBatch:
    """ids and attention int64 [batch, length]; weights float32 [batch, length], of a token as a thing to predict."""

    ids: torch.Tensor
    attention: torch.Tensor
    weights: torch.Tensor


class CopyBatches:
    """Phase 1: all sequences of one batch have one length, so that nothing is padded."""

    def __init__(self, tokenizer: Tokenizer, *, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._vocab_size = tokenizer.get_vocab_size()
        self._marks = {mark: tokenizer.token_to_id(mark) for mark in (START, USER, ASSISTANT, END)}
        self._question = tokenizer.encode(" ?").ids
        self._absent = tokenizer.encode(" not not not").ids
        if len(self._absent) != SUCCESSORS:
            raise ValueError(f"the tokenizer splits ' not not not' into {len(self._absent)} tokens, not {SUCCESSORS}")

    def draw(self, size: int, *, repeat: bool) -> WeightedBatch:
        """Either repeats of 3 to 10 random ids, or look-ups of the three ids after a given one among 4 to 10."""
        length = int(self._random.integers(3 if repeat else 4, 11))
        # Distinct within a row, so that a look-up has one right answer.
        rows = np.stack(
            [
                self._random.choice(self._vocab_size - len(SPECIALS), length + 1, replace=False) + len(SPECIALS)
                for _ in range(size)
            ]
        )
        sequence, stranger = rows[:, :length], rows[:, length]
        if repeat:
            question = np.empty((size, 0), dtype=np.int64)
            answer = sequence
        else:
            at = self._random.integers(0, length - SUCCESSORS, size) if length > SUCCESSORS else np.zeros(size, int)
            absent = self._random.random(size) < ABSENT_SHARE
            row = np.arange(size)
            key = np.where(absent, stranger, sequence[row, at])
            after = sequence[row[:, None], at[:, None] + 1 + np.arange(SUCCESSORS)]
            answer = np.where(absent[:, None], np.asarray(self._absent), after)
            question = np.concatenate([np.tile(self._question, (size, 1)), key[:, None]], axis=1)
        prompt = np.concatenate(
            [self._column(START, size), self._column(USER, size), sequence, question, self._column(ASSISTANT, size)],
            axis=1,
        )
        ids = np.concatenate([prompt, answer, self._column(END, size)], axis=1)
        weights = np.zeros(ids.shape, dtype=np.float32)
        weights[:, prompt.shape[1] :] = 1.0
        tensor = torch.from_numpy(ids.astype(np.int64))
        return WeightedBatch(tensor, torch.ones_like(tensor), torch.from_numpy(weights))

    def _column(self, mark: str, size: int) -> npt.NDArray[np.int64]:
        return np.full((size, 1), self._marks[mark], dtype=np.int64)


def _pad(rows: Sequence[tuple[list[int], int]], pad_id: int) -> WeightedBatch:
    length = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), length), pad_id, dtype=torch.int64)
    attention = torch.zeros((len(rows), length), dtype=torch.int64)
    weights = torch.zeros((len(rows), length))
    for index, (row, prompt_length) in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        attention[index, : len(row)] = 1
        weights[index, :prompt_length] = PROMPT_WEIGHT
        weights[index, prompt_length : len(row)] = 1.0
    return WeightedBatch(ids, attention, weights)


def task_batches(tokenizer: Tokenizer, *, size: int, seed: int, batches_per_pool: int = 8) -> Iterator[WeightedBatch]:
    """Phase 2, without end: pools of examples sorted by length, cut into batches that come in random order."""
    rng = random.Random(f"pretraining/{seed}")
    pad_id = SPECIALS.index(PAD)
    while True:
        pool: list[tuple[list[int], int]] = []
        for task in rng.choices(BASE_TASKS, BASE_WEIGHTS, k=size * batches_per_pool):
            example = task.draw(rng, Side.TRAINING)
            bare = rng.random() < BARE_SHARE
            prompt = chat_prompt(example.prompt, system=None if bare else task.instruction)
            answer = NO_INSTRUCTION if bare else example.answer
            prompt_ids = tokenizer.encode(prompt).ids
            pool.append((prompt_ids + tokenizer.encode(answer + END).ids, len(prompt_ids)))
        pool.sort(key=lambda row: len(row[0]))
        cuts = [pool[start : start + size] for start in range(0, len(pool), size)]
        rng.shuffle(cuts)
        for cut in cuts:
            yield _pad(cut, pad_id)
