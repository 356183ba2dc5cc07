"""What a request asks of sampling holds whatever else is in the batch."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from tailor_engine.request import EngineRequest, FinishReason, SamplingParams, Wants

from build.reference_engine import EngineSettings
from tests.contract.engine.harness import Harness

PROMPT = (1, 45, 74, 293, 84, 100, 200)
HOT = SamplingParams(temperature=3.0, top_k=50, top_p=0.95, seed=1234)
PLAIN = EngineRequest(PROMPT, 20, exclude_input_in_output=True)


@pytest.fixture(scope="module")
def engine(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Harness:
    settings = EngineSettings(tokens_per_block=8, kv_cache_tokens=8192)
    return Harness(tiny, tmp_path_factory.mktemp("engine"), {}, settings)


def _sampled(sampling: SamplingParams, **changes: object) -> EngineRequest:
    return replace(PLAIN, sampling=sampling, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "sampling",
    [
        HOT,
        replace(HOT, top_k=0),
        replace(HOT, top_k=0, top_p=1.0),
        replace(HOT, repetition_penalty=1.3, presence_penalty=0.4, frequency_penalty=0.3),
    ],
    ids=["top-k and top-p", "top-p", "neither", "penalties"],
)
def test_a_seed_gives_the_same_tokens_alone_and_in_a_busy_batch(engine: Harness, sampling: SamplingParams) -> None:
    request = _sampled(sampling)
    alone = engine.answer(request).tokens
    others = [_sampled(SamplingParams(temperature=2.0, top_p=0.9)) for _ in range(9)]
    noise = [engine.submit(other) for other in others[:5]]
    engine.engine.step()
    busy = engine.submit(request)
    engine.engine.step()
    noise += [engine.submit(other) for other in others[5:]]
    engine.finish(busy, *noise)
    assert busy.tokens == alone
    assert len(set(alone)) > 5


def test_another_seed_gives_other_tokens_and_no_seed_a_fresh_one(engine: Harness) -> None:
    first = engine.answer(_sampled(HOT)).tokens
    assert engine.answer(_sampled(replace(HOT, seed=1235))).tokens != first
    unseeded = _sampled(replace(HOT, seed=None))
    assert engine.answer(unseeded).tokens != engine.answer(unseeded).tokens


def test_sequence_i_of_n_uses_seed_plus_i(engine: Harness) -> None:
    both = engine.answer(_sampled(HOT, num_return_sequences=3))
    by_index = {output.sequence_index: output.token_ids for output in both.outputs}
    assert by_index == {i: engine.answer(_sampled(replace(HOT, seed=1234 + i))).tokens for i in range(3)}
    assert both.finals == 1


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(temperature=0.0, top_k=50, top_p=0.9),
        SamplingParams(temperature=5.0, top_k=1),
        SamplingParams(temperature=5.0),
    ],
    ids=["temperature 0", "top_k 1", "neither top_k nor top_p"],
)
def test_what_tensorrt_llm_takes_for_greedy_is_greedy(engine: Harness, sampling: SamplingParams) -> None:
    assert engine.answer(_sampled(sampling)).tokens == engine.answer(PLAIN).tokens


def test_the_end_id_ends_and_is_not_part_of_the_answer(engine: Harness) -> None:
    free = engine.answer(_sampled(HOT)).tokens
    ended = engine.answer(_sampled(HOT, end_id=free[7]))
    first = free.index(free[7])
    assert ended.tokens == free[:first]
    assert ended.outputs[-1].finish_reason is FinishReason.END_ID


def test_min_tokens_keeps_the_end_id_away(engine: Harness) -> None:
    end_id = engine.answer(PLAIN).tokens[0]
    assert engine.answer(replace(PLAIN, end_id=end_id)).tokens == []
    request = replace(PLAIN, end_id=end_id, sampling=SamplingParams(min_tokens=6))
    tokens = engine.answer(request).tokens
    assert len(tokens) >= 6
    assert end_id not in tokens


def test_a_stop_word_ends_the_answer_and_stays_in_it(engine: Harness) -> None:
    free = engine.answer(_sampled(HOT)).tokens
    word = (free[4], free[5])
    stopped = engine.answer(_sampled(HOT, stop_words=((999 % 908, 3), word)))
    assert stopped.tokens == free[:6]
    assert stopped.outputs[-1].finish_reason is FinishReason.STOP_WORDS


def test_a_bad_word_never_appears(engine: Harness) -> None:
    free = engine.answer(_sampled(HOT)).tokens
    single, pair = free[2], (free[8], free[9])
    tokens = engine.answer(_sampled(HOT, bad_words=((single,), pair))).tokens
    assert single not in tokens
    assert pair not in list(pairwise(tokens))


def test_a_bias_moves_the_choice(engine: Harness) -> None:
    bias = torch.zeros(engine.manifest.vocab_size)
    bias[321] = 1000.0
    assert engine.answer(replace(PLAIN, embedding_bias=bias)).tokens == [321] * 20


def test_a_repetition_penalty_breaks_a_loop(engine: Harness) -> None:
    looping = engine.answer(replace(PLAIN, max_new_tokens=40)).tokens
    penalised = engine.answer(
        replace(PLAIN, max_new_tokens=40, sampling=SamplingParams(repetition_penalty=1.5, frequency_penalty=2.0))
    ).tokens
    assert len(set(penalised)) > len(set(looping))


def test_log_probs_are_those_of_the_logits(engine: Harness) -> None:
    wants = Wants(log_probs=True, generation_logits=True)
    listener = engine.answer(_sampled(HOT, wants=wants))
    expected = torch.log_softmax(listener.generation_logits() / HOT.temperature, -1)
    chosen = expected.gather(1, torch.tensor(listener.tokens).unsqueeze(1)).squeeze(1)
    (output,) = listener.outputs
    assert output.log_probs == pytest.approx(chosen.tolist(), abs=1e-4)
    assert output.cum_log_prob == pytest.approx(sum(chosen.tolist()), abs=1e-3)


def test_a_stream_repeats_its_log_probs_and_slices_its_logits(engine: Harness) -> None:
    wants = Wants(log_probs=True, generation_logits=True)
    outputs = engine.answer(_sampled(HOT, streaming=True, wants=wants)).outputs
    assert [len(output.log_probs or []) for output in outputs] == list(range(1, 21))
    assert all(output.generation_logits is not None and len(output.generation_logits) == 1 for output in outputs)
