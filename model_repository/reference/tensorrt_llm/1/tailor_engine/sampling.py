"""
Which token comes next.

Decides it for a whole batch at once, each row by its own request's parameters. Does not know the model, the cache or
where rows come from. Order of operations as in TensorRT-LLM's penalty and sampling kernels: bias, temperature,
repetition, presence and frequency penalty (occurrences are counted over prompt and completion), minimum length, bad
words; then the most likely token, or a draw by inverse transform from the top-k and top-p candidates.
"""

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import torch

from .counter_random import uniform
from .sequence import Sequence
from .words import banned_next

# Candidates looked at before a whole row has to be sorted; TensorRT-LLM's largest top_k as well.
MAX_TOP_K = 1024


@dataclass(frozen=True)
class Picked:
    """A token and, where asked for, the logarithm of its probability over the whole vocabulary."""

    token: int
    log_prob: float | None


def count_tokens(sequence: Sequence, vocab_size: int) -> torch.Tensor:
    """Occurrences [vocabulary] int32 of each id in the sequence; virtual tokens do not count."""
    ids = torch.tensor([token for token in sequence.tokens if token < vocab_size])
    return torch.bincount(ids, minlength=vocab_size).to(torch.int32)


def pick(logits: torch.Tensor, rows: Seq[Sequence], normalize_log_probs: bool = False) -> list[Picked]:
    """
    Pick one token per row.

    logits               [rows, vocabulary] float32; overwritten
    normalize_log_probs  log-probabilities are relative to the top-k candidates, as TensorRT-LLM's option says
    """
    _shape(logits, rows)
    tokens = logits.argmax(-1)
    drawn = [index for index, row in enumerate(rows) if not row.request.sampling.greedy]
    if drawn:
        chosen = logits if len(drawn) == len(rows) else logits[drawn]
        tokens[drawn] = _draw(torch.softmax(chosen, -1), [rows[index] for index in drawn])
    wanted = [index for index, row in enumerate(rows) if row.request.wants.log_probs]
    log_probs: dict[int, float] = {}
    if wanted:
        values = torch.log_softmax(logits[wanted], -1)
        own = values.gather(1, tokens[wanted].unsqueeze(1)).squeeze(1)
        if normalize_log_probs:
            own -= _candidate_mass(values, [rows[index] for index in wanted])
        log_probs = dict(zip(wanted, own.tolist(), strict=True))
    return [Picked(token, log_probs.get(index)) for index, token in enumerate(tokens.tolist())]


def _shape(logits: torch.Tensor, rows: Seq[Sequence]) -> None:
    """Apply bias, temperature, penalties, minimum length and bad words, in place."""
    biased = [index for index, row in enumerate(rows) if row.request.embedding_bias is not None]
    if biased:
        biases = [bias for row in rows if (bias := row.request.embedding_bias) is not None]
        logits[biased] += torch.stack(biases)
    temperatures = [row.request.sampling.temperature or 1.0 for row in rows]
    if any(temperature != 1.0 for temperature in temperatures):
        logits.div_(torch.tensor(temperatures).unsqueeze(1))
    penalised = [index for index, row in enumerate(rows) if row.counts is not None]
    if penalised:
        logits[penalised] = _penalise(logits[penalised], [rows[index] for index in penalised])
    for index, row in enumerate(rows):
        request = row.request
        if row.produced < request.sampling.min_tokens and request.end_id >= 0:
            logits[index, request.end_id] = -torch.inf
        if request.bad_words:
            banned = banned_next(row.tokens, request.bad_words)
            if banned:
                logits[index, banned] = -torch.inf


def _penalise(logits: torch.Tensor, rows: Seq[Sequence]) -> torch.Tensor:
    counts = torch.stack([row.counts for row in rows if row.counts is not None])
    sampling = [row.request.sampling for row in rows]
    repetition = torch.tensor([params.repetition_penalty for params in sampling]).unsqueeze(1)
    presence = torch.tensor([params.presence_penalty for params in sampling]).unsqueeze(1)
    frequency = torch.tensor([params.frequency_penalty for params in sampling]).unsqueeze(1)
    scaled = torch.where(logits < 0, logits * repetition, logits / repetition)
    return torch.where(counts > 0, scaled - presence - frequency * counts, logits)


def _draw(probabilities: torch.Tensor, rows: Seq[Sequence]) -> torch.Tensor:
    """
    One draw per row: the first candidate at which the running sum reaches the row's uniform number times the mass that
    may be drawn. Every row takes a path that depends on its own parameters only.

    Returns:
        token ids [rows]
    """
    uniforms = torch.tensor([uniform(row.seed, row.produced) for row in rows], dtype=torch.float64)
    top_k = [min(row.request.sampling.top_k, MAX_TOP_K, probabilities.shape[1]) for row in rows]
    top_p = [row.request.sampling.top_p for row in rows]
    whole = [k == 0 and p >= 1.0 for k, p in zip(top_k, top_p, strict=True)]
    tokens = torch.empty(len(rows), dtype=torch.int64)
    plain = [index for index, flag in enumerate(whole) if flag]
    if plain:
        running = probabilities[plain].double().cumsum(-1)
        tokens[plain] = _reach(running, uniforms[plain] * running[:, -1])
    ranked = [index for index, flag in enumerate(whole) if not flag]
    if ranked:
        tokens[ranked] = _draw_ranked(
            probabilities[ranked],
            uniforms[ranked],
            [top_k[index] for index in ranked],
            [top_p[index] for index in ranked],
        )
    return tokens


def _draw_ranked(
    probabilities: torch.Tensor, uniforms: torch.Tensor, top_k: Seq[int], top_p: Seq[float]
) -> torch.Tensor:
    vocab_size = probabilities.shape[1]
    widths = torch.tensor([k or min(MAX_TOP_K, vocab_size) for k in top_k])
    values, ids = probabilities.topk(int(widths.max()), dim=-1)
    running = values.double().cumsum(-1)
    # Within top-k, top-p is a share of the k candidates' mass; alone, of the whole.
    mass = running.gather(1, widths.unsqueeze(1) - 1).squeeze(1)
    mass = torch.where(torch.tensor([k > 0 for k in top_k]), mass, torch.ones_like(mass))
    shares = torch.tensor([p if 0.0 < p < 1.0 else 1.0 for p in top_p], dtype=torch.float64)
    targets = uniforms * shares * mass
    places = torch.minimum(_reach(running, targets), widths - 1)
    tokens = ids.gather(1, places.unsqueeze(1)).squeeze(1)
    beyond = [index for index, k in enumerate(top_k) if k == 0 and targets[index] > running[index, widths[index] - 1]]
    for index in beyond:  # a flat distribution: the draw lies behind the candidates, so the row is sorted whole
        ordered, order = probabilities[index].sort(descending=True, stable=True)
        place = _reach(ordered.double().cumsum(-1).unsqueeze(0), targets[index].unsqueeze(0))
        tokens[index] = order[int(place)]
    return tokens


def _reach(running: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """First place where each running sum reaches its target. running [rows, n], targets [rows]."""
    places = torch.searchsorted(running, targets.unsqueeze(1)).squeeze(1)
    return places.clamp_(max=running.shape[1] - 1)


def _candidate_mass(log_probs: torch.Tensor, rows: Seq[Sequence]) -> torch.Tensor:
    masses = torch.zeros(len(rows))
    for index, row in enumerate(rows):
        k = row.request.sampling.top_k
        if k > 0:
            masses[index] = torch.logsumexp(log_probs[index].topk(min(k, log_probs.shape[1])).values, 0)
    return masses
