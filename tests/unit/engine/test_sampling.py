"""Sampling of a whole batch, against one row at a time in plain Python."""

import math
import random
from dataclasses import replace

import pytest
import torch
from tailor_engine.counter_random import uniform
from tailor_engine.request import EngineRequest, SamplingParams, Wants
from tailor_engine.sampling import count_tokens, pick
from tailor_engine.sequence import Sequence

from tests.unit.engine.sequences import sequence

VOCAB = 61


def _plain(logits: list[float], row: Sequence) -> tuple[int, float]:
    """TensorRT-LLM's rules for one row, written as its kernels describe them and without a tensor."""
    request, params = row.request, row.request.sampling
    values = list(logits)
    if request.embedding_bias is not None:
        values = [value + bias for value, bias in zip(values, request.embedding_bias.tolist(), strict=True)]
    values = [value / (params.temperature or 1.0) for value in values]
    for token in set(row.tokens):
        if token >= VOCAB:
            continue
        value = values[token]
        value = value * params.repetition_penalty if value < 0 else value / params.repetition_penalty
        values[token] = value - params.presence_penalty - params.frequency_penalty * row.tokens.count(token)
    if row.produced < params.min_tokens and request.end_id >= 0:
        values[request.end_id] = -math.inf
    for word in request.bad_words:
        if list(word[:-1]) == row.tokens[len(row.tokens) - len(word) + 1 :]:
            values[word[-1]] = -math.inf
    top = max(values)
    total = sum(math.exp(value - top) for value in values)
    probabilities = [math.exp(value - top) / total for value in values]
    order = sorted(range(VOCAB), key=lambda token: (-probabilities[token], token))
    if params.greedy:
        token = order[0]
    elif params.top_k == 0 and params.top_p >= 1.0:
        token = _inverse(list(range(VOCAB)), probabilities, uniform(row.seed, row.produced))
    else:
        kept = order[: params.top_k] if params.top_k else order
        mass = sum(probabilities[token] for token in kept)
        share = params.top_p if 0 < params.top_p < 1 else 1.0
        token = _inverse(kept, probabilities, uniform(row.seed, row.produced) * share * mass)
    return token, math.log(probabilities[token])


def _inverse(order: list[int], probabilities: list[float], target: float) -> int:
    running = 0.0
    for token in order:
        running += probabilities[token]
        if running >= target:
            return token
    return order[-1]


def _random_row(chooser: random.Random) -> Sequence:
    params = SamplingParams(
        temperature=chooser.choice([0.0, 0.5, 1.0, 2.5]),
        top_k=chooser.choice([0, 1, 4, 17, 61, 100]),
        top_p=chooser.choice([0.0, 0.2, 0.7, 0.99, 1.0]),
        repetition_penalty=chooser.choice([1.0, 1.0, 1.4, 0.8]),
        presence_penalty=chooser.choice([0.0, 0.0, 0.6, -0.3]),
        frequency_penalty=chooser.choice([0.0, 0.0, 0.4]),
        min_tokens=chooser.choice([0, 0, 5]),
    )
    bias = torch.randn(VOCAB, generator=torch.Generator().manual_seed(chooser.randrange(99)))
    prompt = tuple(chooser.choices(range(VOCAB), k=6))
    request = EngineRequest(
        input_ids=prompt,
        max_new_tokens=20,
        end_id=chooser.choice([-1, 3]),
        sampling=params,
        embedding_bias=chooser.choice([None, None, bias]),
        bad_words=chooser.choice([(), ((7,), (8, 9)), ((prompt[-2], prompt[-1], 11),)]),
        wants=Wants(log_probs=True),
    )
    return sequence(
        request,
        produced=tuple(chooser.choices(range(VOCAB), k=chooser.randint(0, 7))),
        seed=chooser.randrange(1 << 64),
        vocab_size=VOCAB if params.penalised else None,
    )


@pytest.mark.parametrize("seed", range(8))
def test_a_batch_of_anything_equals_each_row_by_hand(seed: int) -> None:
    chooser = random.Random(seed)
    rows = [_random_row(chooser) for _ in range(40)]
    logits = torch.randn(40, VOCAB, generator=torch.Generator().manual_seed(seed)) * 3
    expected = [_plain(line, row) for line, row in zip(logits.tolist(), rows, strict=True)]
    picked = pick(logits.clone(), rows)
    assert [choice.token for choice in picked] == [token for token, _ in expected]
    assert [choice.log_prob for choice in picked] == pytest.approx([value for _, value in expected], abs=1e-4)


def test_a_row_alone_gets_what_it_gets_among_others() -> None:
    chooser = random.Random(99)
    rows = [_random_row(chooser) for _ in range(30)]
    logits = torch.randn(30, VOCAB, generator=torch.Generator().manual_seed(99)) * 3
    together = [choice.token for choice in pick(logits.clone(), rows)]
    assert together == [pick(logits[place : place + 1].clone(), [row])[0].token for place, row in enumerate(rows)]


def test_a_flat_distribution_is_drawn_beyond_the_first_candidates() -> None:
    vocab_size = 5000
    request = EngineRequest((1,), 5, sampling=SamplingParams(top_p=0.999))
    rows = [sequence(request, seed=seed) for seed in range(200)]
    logits = torch.linspace(0.01, 0.0, vocab_size).repeat(200, 1)
    tokens = [choice.token for choice in pick(logits, rows)]
    expected = [uniform(row.seed, 0) * 0.999 * vocab_size for row in rows]
    assert max(tokens) > 4000
    assert all(abs(token - place) < 30 for token, place in zip(tokens, expected, strict=True))


def test_draws_follow_the_distribution() -> None:
    request = EngineRequest((1,), 5, sampling=SamplingParams(top_p=1.0))
    rows = [sequence(request, seed=seed) for seed in range(4000)]
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05])).repeat(4000, 1)
    tokens = [choice.token for choice in pick(logits, rows)]
    assert [tokens.count(token) / 4000 for token in range(4)] == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)


def test_log_probs_are_computed_only_where_asked_for() -> None:
    asked = sequence(EngineRequest((1,), 5, wants=Wants(log_probs=True)))
    other = sequence(EngineRequest((1,), 5))
    first, second = pick(torch.randn(2, VOCAB), [asked, other])
    assert first.log_prob is not None
    assert second.log_prob is None


def test_normalised_log_probs_are_relative_to_the_candidates() -> None:
    wants = Wants(log_probs=True)
    logits = torch.randn(2, VOCAB, generator=torch.Generator().manual_seed(3))
    greedy = sequence(EngineRequest((1,), 5, sampling=SamplingParams(top_k=1), wants=wants))
    drawn = sequence(EngineRequest((1,), 5, sampling=SamplingParams(top_k=4), wants=wants), seed=5)
    first, second = pick(logits.clone(), [greedy, drawn], normalize_log_probs=True)
    assert first.log_prob == pytest.approx(0.0, abs=1e-6)
    candidates = logits[1].topk(4)
    place = candidates.indices.tolist().index(second.token)
    assert second.log_prob == pytest.approx(float(torch.log_softmax(candidates.values, 0)[place]), abs=1e-5)


def test_virtual_tokens_are_not_counted() -> None:
    made = sequence(EngineRequest((VOCAB, VOCAB + 1, 4, 4), 5), produced=(6,))
    counts = count_tokens(made, VOCAB)
    assert counts.sum() == 3
    assert counts[[4, 6]].tolist() == [2, 1]


@pytest.mark.parametrize(
    ("params", "greedy"),
    [
        (SamplingParams(), True),
        (SamplingParams(temperature=9.0), True),
        (SamplingParams(top_k=1, top_p=0.5), True),
        (SamplingParams(temperature=0.0, top_k=9), True),
        (SamplingParams(top_k=2), False),
        (SamplingParams(top_p=0.1), False),
    ],
)
def test_what_is_greedy(params: SamplingParams, greedy: bool) -> None:
    assert params.greedy is greedy
    assert replace(params, temperature=0.0).greedy
