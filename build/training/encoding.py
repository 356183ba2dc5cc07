"""
Examples as token ids, and batches of them.

Decides: that a prompt is one user message rendered by the base's own chat template with its generation prompt, that an
answer ends in the end-of-sequence token, and that only the answer and that token are learnt.
Does not know: the tasks, the adapters, the loss.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from build.tasks.example import Example


@dataclass(frozen=True, slots=True)
class EncodedExample:
    """The ids of a rendered prompt, and of its answer with the end token."""

    prompt_ids: list[int]
    answer_ids: list[int]


@dataclass(frozen=True, slots=True)
class AnswerBatch:
    """ids and attention int64 [batch, length], padded on the right; is_answer bool [batch, length]."""

    ids: torch.Tensor
    attention: torch.Tensor
    is_answer: torch.Tensor


def render_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str, *, instruction: str | None = None) -> list[int]:
    """Token ids of a chat of one user message, after a system message where an instruction is given."""
    messages = [] if instruction is None else [{"role": "system", "content": instruction}]
    messages.append({"role": "user", "content": prompt})
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def encode(tokenizer: PreTrainedTokenizerBase, example: Example) -> EncodedExample:
    """
    The ids of one example.

    Prompt and answer are tokenised apart, as they are when served: the engine appends its own ids to the prompt's.
    """
    answer_ids = tokenizer(example.answer, add_special_tokens=False)["input_ids"]
    return EncodedExample(render_prompt(tokenizer, example.prompt), [*answer_ids, tokenizer.eos_token_id])


def _pad(rows: Sequence[EncodedExample], pad_id: int) -> AnswerBatch:
    length = max(len(row.prompt_ids) + len(row.answer_ids) for row in rows)
    ids = torch.full((len(rows), length), pad_id, dtype=torch.int64)
    attention = torch.zeros((len(rows), length), dtype=torch.int64)
    # By position and never by the pad id: SmolLM2 pads with its end token, which has to be learnt.
    is_answer = torch.zeros((len(rows), length), dtype=torch.bool)
    for index, row in enumerate(rows):
        start, end = len(row.prompt_ids), len(row.prompt_ids) + len(row.answer_ids)
        ids[index, :end] = torch.tensor(row.prompt_ids + row.answer_ids)
        attention[index, :end] = 1
        is_answer[index, start:end] = True
    return AnswerBatch(ids, attention, is_answer)


def endless_batches(rows: Sequence[EncodedExample], *, size: int, seed: int, pad_id: int) -> Iterator[AnswerBatch]:
    """Batches for ever: every example once per pass, in an order that the seed decides."""
    rng = random.Random(f"batches/{seed}")
    waiting: list[EncodedExample] = []
    while True:
        while len(waiting) < size:
            waiting.extend(rng.sample(rows, len(rows)))
        yield _pad(waiting[:size], pad_id)
        del waiting[:size]
