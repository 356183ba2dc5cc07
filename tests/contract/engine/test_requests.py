"""A request's life: streams, limits, refusals, cancellation; and nothing that one does harms another."""

import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tailor_engine.engine import load_engine
from tailor_engine.errors import EnqueueError
from tailor_engine.kv_blocks import BlockPool, Move
from tailor_engine.request import EngineRequest, FinishReason, LoraInput, PromptTable, SamplingParams, Wants

from build.reference_engine import EngineSettings
from tests.contract.engine.harness import Harness, Listener

PROMPT = (1, 45, 74, 293, 84, 100, 200)
PLAIN = EngineRequest(PROMPT, 16, streaming=True)
HIDDEN, INNER, VOCAB, LAYERS = 128, 512, 908, 4


@pytest.fixture(scope="module")
def engine(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Harness:
    settings = EngineSettings(tokens_per_block=8, kv_cache_tokens=4096, prompt_table_rows=12)
    return Harness(tiny, tmp_path_factory.mktemp("engine"), {"max_logits_bytes": "100000"}, settings)


def _fresh(tiny: Path, scratch: Path, parameters: dict[str, str] | None = None, **settings: int | bool) -> Harness:
    chosen = {"kv_cache_tokens": 4096, "tokens_per_block": 8, **settings}
    return Harness(tiny, scratch, parameters or {}, EngineSettings(**chosen))  # type: ignore[arg-type]


def _lora(task_id: int | None, *, seed: int = 0, module: int = 1, layer: int = 0, rank: int = 4) -> LoraInput:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(1, rank * (HIDDEN + HIDDEN), generator=generator) * 0.3
    return LoraInput(task_id, weights, torch.tensor([[module, layer, rank]], dtype=torch.int32))


# Streams and their ends


def test_a_stream_is_the_same_answer_in_pieces(engine: Harness) -> None:
    stream = engine.answer(PLAIN)
    whole = engine.answer(replace(PLAIN, streaming=False))
    assert [len(output.token_ids) for output in stream.outputs] == [1] * 16
    assert len(whole.outputs) == 1
    assert whole.tokens == [*PROMPT, *stream.tokens]
    without = engine.answer(replace(PLAIN, streaming=False, exclude_input_in_output=True))
    assert without.tokens == stream.tokens
    assert stream.finals == whole.finals == without.finals == 1


def test_the_last_content_carries_the_end(engine: Harness) -> None:
    listener = engine.submit(PLAIN)
    engine.finish(listener)
    assert listener.outputs[-1].finish_reason is FinishReason.LENGTH
    assert len(listener.outputs) == 16


def test_more_tokens_than_fit_are_cut_in_silence(engine: Harness) -> None:
    listener = engine.answer(replace(PLAIN, max_new_tokens=100_000))
    assert len(listener.tokens) == engine.manifest.max_total_tokens - len(PROMPT)
    assert listener.outputs[-1].finish_reason is FinishReason.LENGTH


def test_a_long_prompt_leaves_every_stream_its_token_per_chunk(tiny: Path, tmp_path: Path) -> None:
    harness = _fresh(tiny, tmp_path, {"prefill_chunk_tokens": "10"})
    streams = [harness.submit(replace(PLAIN, max_new_tokens=60)) for _ in range(3)]
    harness.engine.step()
    harness.engine.step()
    long = harness.submit(EngineRequest(tuple(range(10, 210)), 4, streaming=True))
    before = [len(stream.tokens) for stream in streams]
    steps = 0
    while not long.tokens:
        harness.engine.step()
        steps += 1
        assert [len(stream.tokens) for stream in streams] == [count + steps for count in before]
    assert steps == 20  # 200 tokens in chunks of 10
    harness.finish(long, *streams)
    assert long.tokens == _fresh(tiny, tmp_path / "other").answer(long_request(4)).tokens


def long_request(new_tokens: int) -> EngineRequest:
    return EngineRequest(tuple(range(10, 210)), new_tokens, streaming=True)


# Cancellation


@pytest.mark.parametrize("steps", [0, 1, 5], ids=["while queued", "after the first step", "mid-stream"])
def test_a_caller_who_leaves_frees_the_slot(tiny: Path, tmp_path: Path, steps: int) -> None:
    harness = _fresh(tiny, tmp_path, {"cancellation_check_period_ms": "0"})
    leaving, staying = harness.submit(replace(PLAIN, max_new_tokens=200)), harness.submit(PLAIN)
    for _ in range(steps):
        harness.engine.step()
    leaving.cancelled = True
    told = len(leaving.outputs)
    harness.engine.step()
    assert leaving.finals == 1
    assert len(leaving.outputs) == told
    harness.finish(staying)
    assert len(staying.tokens) == 16
    assert harness.stats[-1].active == 0
    assert harness.stats[-1].blocks.used == 0


def test_a_caller_who_leaves_during_a_long_prompt_is_noticed_before_its_first_token(tiny: Path, tmp_path: Path) -> None:
    harness = _fresh(tiny, tmp_path, {"max_num_tokens": "10", "cancellation_check_period_ms": "0"})
    listener = harness.submit(long_request(4))
    harness.engine.step()
    assert harness.stats[-1].context == 1
    listener.cancelled = True
    harness.engine.step()
    assert listener.finals == 1
    assert not listener.outputs
    assert harness.stats[-1].blocks.used == 0


@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "whole"])
def test_a_stopped_request_ends_with_what_it_has(tiny: Path, tmp_path: Path, streaming: bool) -> None:
    harness = _fresh(tiny, tmp_path)
    request = replace(PLAIN, max_new_tokens=100, streaming=streaming, exclude_input_in_output=True)
    whole = harness.answer(request).tokens
    listener = harness.submit(request)
    for _ in range(6):
        harness.engine.step()
    harness.engine.stop(listener.number)
    harness.engine.step()
    assert listener.finals == 1
    assert listener.tokens == whole[:6]
    assert listener.outputs[-1].finish_reason is FinishReason.CANCELLED
    harness.engine.stop(listener.number)  # once more, when it is long over
    harness.engine.stop(123_456)


# Bounds


def test_the_queue_is_bounded(tiny: Path, tmp_path: Path) -> None:
    harness = _fresh(tiny, tmp_path, {"max_queue_size": "3"}, max_batch_size=2)
    listeners = [harness.submit(PLAIN) for _ in range(3)]
    with pytest.raises(EnqueueError, match="Maximum queue size of 3 has been reached, please try again later"):
        harness.submit(PLAIN)
    harness.finish(*listeners)
    harness.answer(PLAIN)


def test_waiting_weights_are_bounded_in_bytes(tiny: Path, tmp_path: Path) -> None:
    harness = _fresh(tiny, tmp_path, {"max_queue_bytes": "10000"})
    first = harness.submit(replace(PLAIN, lora=_lora(1)))
    second = harness.submit(replace(PLAIN, lora=_lora(2)))
    with pytest.raises(EnqueueError, match="Maximum queue size"):
        harness.submit(replace(PLAIN, lora=_lora(3)))
    harness.finish(first, second)


def test_no_more_run_than_the_batch_holds_and_nobody_is_evicted(tiny: Path, tmp_path: Path) -> None:
    harness = _fresh(tiny, tmp_path, max_batch_size=4, kv_cache_tokens=512)
    alone = harness.answer(replace(PLAIN, max_new_tokens=120)).tokens
    listeners = [harness.submit(replace(PLAIN, max_new_tokens=120)) for _ in range(13)]
    harness.finish(*listeners)
    assert all(listener.tokens == alone for listener in listeners)
    assert max(stats.scheduled for stats in harness.stats) == 4
    assert max(stats.blocks.used for stats in harness.stats) <= 64


def test_a_fragmented_cache_is_compacted_and_answers_stay_right(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[Move] = []
    compact = BlockPool._compact

    def watched(pool: BlockPool) -> tuple[Move, ...]:
        done = compact(pool)
        moves.extend(done)
        return done

    monkeypatch.setattr(BlockPool, "_compact", watched)
    harness = _fresh(tiny, tmp_path, kv_cache_tokens=512, max_batch_size=16)
    long = replace(long_request(240), sampling=SamplingParams(repetition_penalty=1.4))
    expected = harness.answer(long).tokens
    short = replace(PLAIN, max_new_tokens=40, sampling=SamplingParams(repetition_penalty=1.4))
    expected_short = harness.answer(short).tokens
    # Ten of 6 blocks each; every second one ends at once, leaving holes that the long request (55 blocks) has to join.
    staying: list[Listener] = []
    leaving: list[Listener] = []
    for index in range(10):
        request = short if index % 2 else replace(short, max_new_tokens=40, stop_words=((expected_short[1],),))
        (staying if index % 2 else leaving).append(harness.submit(request))
    harness.finish(*leaving)
    big = harness.submit(replace(long, max_new_tokens=56))
    assert not any(listener.finals for listener in staying)
    harness.finish(big, *staying)
    assert moves
    assert big.tokens == expected[:56]
    assert all(listener.tokens == expected_short for listener in staying)


# Refusals

TABLE = torch.zeros(3, HIDDEN)
VIRTUAL = (VOCAB, VOCAB + 1, VOCAB + 2, *PROMPT)
EXTRA = (7, 7, 7, *[0] * len(PROMPT))
REFUSALS: dict[str, tuple[EngineRequest, str]] = {
    "end id": (replace(PLAIN, end_id=VOCAB), r"EndId \(908\) is not within acceptable range \[-1, 908\)\."),
    "prompt": (
        replace(PLAIN, input_ids=(5,) * 449),
        r"Prompt length \(449\) exceeds maximum input length \(448\)\. Set log level to info",
    ),
    "no prompt": (replace(PLAIN, input_ids=()), r"Prompt length \(0\)"),
    "negative id": (replace(PLAIN, input_ids=(1, -2)), r"Token id \(-2\) is out of range"),
    "id without a table": (replace(PLAIN, input_ids=(1, VOCAB)), r"Token id \(908\) is out of range.*no prompt table"),
    "id beyond the table": (
        replace(PLAIN, input_ids=(VOCAB + 3, *PROMPT), prompt_table=PromptTable(TABLE, (7,) + (0,) * 7)),
        r"Token id \(911\) is out of range.*3 rows",
    ),
    "beams": (replace(PLAIN, beam_width=2), r"Requested beam width \(2\)"),
    "temperature": (replace(PLAIN, sampling=SamplingParams(temperature=-1.0)), "Incorrect sampling config"),
    "not a number": (replace(PLAIN, sampling=SamplingParams(temperature=float("nan"))), "Incorrect sampling config"),
    "top p": (replace(PLAIN, sampling=SamplingParams(top_p=1.5)), "Incorrect sampling config"),
    "top k": (replace(PLAIN, sampling=SamplingParams(top_k=-1)), "Incorrect sampling config"),
    "sequences": (replace(PLAIN, num_return_sequences=65), r"num_return_sequences \(65\) exceeds"),
    "bias": (replace(PLAIN, embedding_bias=torch.zeros(5)), r"embedding_bias has shape \[5\]"),
    "stop word": (replace(PLAIN, stop_words=((VOCAB,),)), "stop_words_list holds an id outside the vocabulary"),
    "guide": (
        replace(PLAIN, guided=True),
        "Request is specified with GuidedDecodingParams, but GuidedDecoder is not setup",
    ),
    "logits too large": (
        replace(PLAIN, input_ids=(5,) * 200, wants=Wants(context_logits=True)),
        r"the logits asked for take 726400 bytes",
    ),
    "table rows": (
        replace(PLAIN, input_ids=VIRTUAL, prompt_table=PromptTable(torch.zeros(13, HIDDEN), EXTRA)),
        "Prompt vocab size13 is larger than max prompt vocab size of 12. "
        "Max prompt vocab size is computed from max_prompt_embedding_table_size / max_batch_size.",
    ),
    "table dtype": (
        replace(PLAIN, input_ids=VIRTUAL, prompt_table=PromptTable(TABLE.half(), EXTRA)),
        "Request embedding table data type doesn't match model weight data type.",
    ),
    "table width": (
        replace(PLAIN, input_ids=VIRTUAL, prompt_table=PromptTable(torch.zeros(3, 64), EXTRA)),
        r"prompt_embedding_table has shape \[3, 64\]; the engine takes \[rows, 128\]",
    ),
    "table of nan": (
        replace(PLAIN, input_ids=VIRTUAL, prompt_table=PromptTable(torch.full((3, HIDDEN), torch.nan), EXTRA)),
        "not finite",
    ),
    "extra ids": (
        replace(PLAIN, input_ids=VIRTUAL, prompt_table=PromptTable(TABLE)),
        "Input token extra ids must be provided when enabling kv cache reuse with prompt table",
    ),
    "weights without config": (
        replace(PLAIN, lora=LoraInput(1, _lora(1).weights, None)),
        "Request for LoRA inference must have both lora_weights and lora_keys",
    ),
    "config without weights": (
        replace(PLAIN, lora=LoraInput(1, None, _lora(1).config)),
        "Request for LoRA inference must have both lora_weights and lora_keys",
    ),
    "no task id": (replace(PLAIN, lora=_lora(None)), "lora_task_id must be set for LoRA inference"),
    "unknown module": (replace(PLAIN, lora=_lora(1, module=18)), "lora module mlp_gate_up not enabled for this model"),
    "fused module": (replace(PLAIN, lora=_lora(1, module=0)), "lora module attn_qkv not enabled for this model"),
    "no module": (replace(PLAIN, lora=_lora(1, module=77)), "not enabled for this model"),
    "rank": (
        replace(PLAIN, lora=_lora(1, rank=65)),
        r"Invalid low_rank \(65\)\. low_rank must be smaller than mMaxLowRank \(64\)",
    ),
    "rank 0": (replace(PLAIN, lora=_lora(1, rank=0)), "Expected adapterSize to be > 0"),
    "too few values": (replace(PLAIN, lora=_lora(1, module=5)), "lora_weights has to few values for mlp_h_to_4h"),
    "layer": (
        replace(PLAIN, lora=_lora(1, layer=LAYERS)),
        r"Expected layerId to be in the range \[0, numModelLayers\)",
    ),
    "lora dtype": (
        replace(PLAIN, lora=LoraInput(1, torch.zeros(1, 2048, dtype=torch.float16), _lora(1).config)),
        "Expected lora weights to be the same data type as base model",
    ),
    "rows": (
        replace(PLAIN, lora=LoraInput(1, torch.zeros(2, 2048), _lora(1).config)),
        "Expected dim1 lora_weights and lora_keys to have the same size",
    ),
    "columns": (
        replace(PLAIN, lora=LoraInput(1, torch.zeros(1, 2048), torch.tensor([[1, 0]], dtype=torch.int32))),
        r"Expected dim2 of lora_keys to have a size in \[3, 4\]",
    ),
    "same module twice": (
        replace(
            PLAIN,
            lora=LoraInput(1, torch.zeros(2, 2048), torch.tensor([[1, 0, 4], [1, 0, 4]], dtype=torch.int32)),
        ),
        "lora module attn_q is given twice for layer 0",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_says_why_and_harms_no_other_stream(engine: Harness, name: str) -> None:
    request, text = REFUSALS[name]
    expected = engine.answer(PLAIN).tokens
    stream = engine.submit(PLAIN)
    engine.engine.step()
    refused = engine.submit(request)
    engine.finish(stream, refused)
    assert refused.error is not None
    prefix = (
        f"Executor failed process requestId {refused.number} due to the following error: "
        "Encountered an error when fetching new request: "
    )
    assert refused.error.startswith(prefix)
    assert re.search(text, refused.error.removeprefix(prefix)), refused.error
    assert not refused.outputs
    assert stream.error is None
    assert stream.tokens == expected
    assert engine.stats[-1].active == 0


def test_logits_that_were_not_built_are_refused(tiny: Path, tmp_path: Path) -> None:
    harness = _fresh(tiny, tmp_path)
    path = tmp_path / "manifest.json"
    built = path.read_text().replace('"context": true', '"context": false')
    path.write_text(built.replace('"generation": true', '"generation": false'))
    parameters = {"max_tokens_in_paged_kv_cache": "4096", "threads": "1"}
    harness.engine = load_engine(tmp_path, parameters, harness._deliver, harness.stats.append)
    (context,) = harness.run(replace(PLAIN, wants=Wants(context_logits=True)))
    assert "Return context logit need to build engine with gather_context_logits" in str(context.error)
    (generation,) = harness.run(replace(PLAIN, wants=Wants(generation_logits=True)))
    assert "To return generation logits, gather_generation_logits must be enabled" in str(generation.error)


def test_a_failing_forward_step_fails_those_in_it_and_the_engine_goes_on(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = _fresh(tiny, tmp_path)
    expected = harness.answer(PLAIN).tokens
    caught = harness.submit(replace(PLAIN, lora=_lora(9)))
    harness.engine.step()

    def broken(*_: object) -> torch.Tensor:
        raise RuntimeError("out of luck")

    with monkeypatch.context() as patch:
        patch.setattr(harness.engine._decoder, "forward", broken)
        harness.engine.step()
    assert str(caught.error).endswith("Encountered an error in forwardAsync function: out of luck")
    assert harness.answer(PLAIN).tokens == expected
    assert harness.stats[-1].blocks.used == 0
    assert harness.answer(replace(PLAIN, lora=LoraInput(9))).tokens  # its adapter was given back, not lost


def test_an_adapter_of_nan_spoils_its_own_answers_only(tiny: Path, tmp_path: Path) -> None:
    harness = _fresh(tiny, tmp_path)
    expected = harness.answer(PLAIN).tokens
    good = _lora(1)
    expected_good = harness.answer(replace(PLAIN, lora=good)).tokens
    bad = LoraInput(2, torch.full((1, 4 * (HIDDEN + HIDDEN)), torch.nan), good.config)
    sampling = SamplingParams(temperature=1.0, top_p=0.9, seed=3)
    spoilt = harness.submit(replace(PLAIN, lora=bad, sampling=sampling, wants=Wants(log_probs=True)))
    beside = [harness.submit(PLAIN), harness.submit(replace(PLAIN, lora=LoraInput(1)))]
    harness.finish(spoilt, *beside)
    assert [listener.tokens for listener in beside] == [expected, expected_good]
    assert harness.answer(PLAIN).tokens == expected
    assert harness.stats[-1].blocks.used == 0


# The LoRA cache


def _room_for_two(tiny: Path, scratch: Path) -> Harness:
    adapter = (4 * (HIDDEN + HIDDEN)) * 4
    return _fresh(tiny, scratch, lora_cache_bytes=2 * adapter + 100)


def test_the_id_alone_works_once_the_weights_came(tiny: Path, tmp_path: Path) -> None:
    harness = _room_for_two(tiny, tmp_path)
    (miss,) = harness.run(replace(PLAIN, lora=LoraInput(5)))
    number = miss.number
    assert miss.error == (
        f"Executor failed process requestId {number} due to the following error: "
        "LoRA task 5 not found in cache. Please send LoRA weights with request"
    )
    first = harness.answer(replace(PLAIN, lora=_lora(5))).tokens
    assert harness.answer(replace(PLAIN, lora=LoraInput(5))).tokens == first
    assert first != harness.answer(PLAIN).tokens


def test_other_weights_under_a_resident_id_are_ignored_until_it_is_evicted(tiny: Path, tmp_path: Path) -> None:
    harness = _fresh(tiny, tmp_path, lora_cache_bytes=2 * 4096 + 100, kv_reuse=False)
    first = harness.answer(replace(PLAIN, lora=_lora(5, seed=1))).tokens
    other = replace(PLAIN, lora=_lora(5, seed=2))
    assert harness.answer(other).tokens == first
    harness.answer(replace(PLAIN, lora=_lora(6)))
    harness.answer(replace(PLAIN, lora=_lora(7)))
    assert harness.answer(other).tokens != first


def test_the_least_recently_used_adapter_leaves_first(tiny: Path, tmp_path: Path) -> None:
    harness = _room_for_two(tiny, tmp_path)
    for task_id in (1, 2):
        harness.answer(replace(PLAIN, lora=_lora(task_id)))
    harness.answer(replace(PLAIN, lora=LoraInput(1)))
    harness.answer(replace(PLAIN, lora=_lora(3)))
    harness.answer(replace(PLAIN, lora=LoraInput(1)))
    (gone,) = harness.run(replace(PLAIN, lora=LoraInput(2)))
    assert "LoRA task 2 not found in cache" in str(gone.error)


def test_a_cache_full_of_adapters_in_use_says_so_and_recovers(tiny: Path, tmp_path: Path) -> None:
    harness = _room_for_two(tiny, tmp_path)
    busy = [harness.submit(replace(PLAIN, lora=_lora(task_id))) for task_id in (1, 2)]
    harness.engine.step()
    (full,) = harness.run(replace(PLAIN, lora=_lora(3)))
    assert full.error == (
        f"Executor failed process requestId {full.number} due to the following error: PEFT Cache is full. "
        "Could not store taskId=3: Cache is full. There are no done tasks to evict"
    )
    harness.finish(*busy)
    harness.answer(replace(PLAIN, lora=_lora(3)))


def test_an_adapter_larger_than_the_cache_is_refused(tiny: Path, tmp_path: Path) -> None:
    harness = _fresh(tiny, tmp_path, lora_cache_bytes=1000)
    (refused,) = harness.run(replace(PLAIN, lora=_lora(1)))
    assert "Error storing task=1 in PEFT cache" in str(refused.error)


def test_a_round_robin_over_more_adapters_than_fit_works_when_misses_are_answered(tiny: Path, tmp_path: Path) -> None:
    harness = _room_for_two(tiny, tmp_path)
    answers: dict[int, list[int]] = {}
    for _ in range(3):
        for task_id in range(1, 6):
            (listener,) = harness.run(replace(PLAIN, lora=LoraInput(task_id)))
            if listener.error is not None:
                assert "not found in cache" in listener.error
                listener = harness.answer(replace(PLAIN, lora=_lora(task_id, seed=task_id)))
            assert answers.setdefault(task_id, listener.tokens) == listener.tokens
    assert len({tuple(tokens) for tokens in answers.values()}) > 1


# Prefix reuse


def test_prefixes_are_shared_within_one_adapter_and_table_only(tiny: Path, tmp_path: Path) -> None:
    harness = _fresh(tiny, tmp_path)
    prompt = tuple(range(20, 60))
    wants = Wants(perf_metrics=True)

    def reused(**changes: object) -> int:
        request = replace(PLAIN, input_ids=prompt, wants=wants, **changes)  # type: ignore[arg-type]
        output = harness.answer(request).outputs[-1]
        assert output.perf is not None
        return output.perf.reused_blocks

    assert reused() == 0
    assert reused() == 4  # 40 tokens are five blocks of 8; the last one is computed for its logits
    assert reused(lora=_lora(1)) == 0
    assert reused(lora=LoraInput(1)) == 4
    assert reused(lora=_lora(2)) == 0

    def with_table(extra_id: int) -> int:
        ids = (VOCAB, VOCAB + 1, *prompt)
        table = PromptTable(torch.full((2, HIDDEN), 0.01 * extra_id), (extra_id, extra_id, *[0] * len(prompt)))
        output = harness.answer(replace(PLAIN, input_ids=ids, wants=wants, prompt_table=table)).outputs[-1]
        assert output.perf is not None
        return output.perf.reused_blocks

    assert with_table(1) == 0
    assert with_table(1) == 5
    assert with_table(2) == 0
    assert harness.stats[-1].blocks.reused == 4 + 4 + 5


def test_a_second_turn_reuses_the_first_answer(tiny: Path, tmp_path: Path) -> None:
    harness = _fresh(tiny, tmp_path)
    first = harness.answer(replace(PLAIN, input_ids=tuple(range(20, 40)), max_new_tokens=30))
    turn = (*range(20, 40), *first.tokens, 50, 51, 52)
    second = replace(PLAIN, input_ids=turn, wants=Wants(perf_metrics=True, generation_logits=True))
    listener = harness.answer(second)
    perf = listener.outputs[-1].perf
    assert perf is not None
    assert perf.reused_blocks == 6  # 49 tokens were written: six full blocks
    plain = _fresh(tiny, tmp_path / "plain", kv_reuse=False).answer(second)
    assert listener.tokens == plain.tokens
    assert (listener.generation_logits() - plain.generation_logits()).abs().max() < 1e-4


def test_waiting_for_the_engine_from_another_thread(tiny: Path, tmp_path: Path) -> None:
    harness = _fresh(tiny, tmp_path)
    expected = harness.answer(PLAIN).tokens
    thread = threading.Thread(target=harness.engine.run)
    thread.start()
    listeners = [harness.submit(PLAIN) for _ in range(8)]
    _wait(lambda: all(listener.finals for listener in listeners))
    open_one = harness.submit(replace(PLAIN, max_new_tokens=500))
    _wait(lambda: bool(open_one.outputs))
    harness.engine.close()
    thread.join()
    assert all(listener.tokens == expected for listener in listeners)
    assert open_one.finals == 1
    with pytest.raises(EnqueueError):
        harness.submit(PLAIN)


def _wait(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(3000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not happen within 30 seconds")
