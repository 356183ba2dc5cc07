"""The reference engine behind a real Triton: what crosses the border, and what a request may do to others."""

import shutil
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from safetensors.numpy import load_file

from build.reference_engine import EngineSettings, write_engine
from gateway.domain.manifest import Dtype
from tests.live.engine_client import Arrays, EngineError, Stream, ask, tokens_of
from tests.live.engine_triton import ROOT, RunningTriton, missing, triton

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

TINY = ROOT / "build" / "tiny"
PROMPT = [1, 45, 74, 293, 84, 100, 200]
HIDDEN, VOCAB, RANK = 128, 908, 4
ADAPTER_BYTES = RANK * 2 * HIDDEN * 4


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTriton]:
    scratch = tmp_path_factory.mktemp("engine")
    settings = EngineSettings(
        lora_cache_bytes=2 * ADAPTER_BYTES + 100, tokens_per_block=8, kv_cache_tokens=4096, max_batch_size=16, threads=1
    )
    write_engine(TINY, "tiny", scratch, settings)
    with triton(scratch, 18150, scratch / "triton.log") as running:
        yield running


def _request(new_tokens: int = 12, prompt: list[int] | None = None, **tensors: Any) -> dict[str, Any]:
    ids = PROMPT if prompt is None else prompt
    return {
        "input_ids": np.array([ids], np.int32),
        "input_lengths": np.array([[len(ids)]], np.int32),
        "request_output_len": np.array([[new_tokens]], np.int32),
        "streaming": np.array([[True]]),
        **tensors,
    }


def _flags(*names: str) -> dict[str, Any]:
    return {name: np.array([[True]]) for name in names}


def _lora(task_id: int, *, weights: bool, dtype: Any = np.float32) -> dict[str, Any]:
    tensors: dict[str, Any] = {"lora_task_id": np.array([[task_id]], np.uint64)}
    if weights:
        values = np.random.default_rng(task_id).normal(0, 1.0, (1, 1, RANK * 2 * HIDDEN))
        tensors["lora_weights"] = values.astype(dtype)
        tensors["lora_config"] = np.array([[[1, 0, RANK]]], np.int32)
    return tensors


def _eventually(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(300):
        if condition():
            return
        pause.wait(0.05)
    raise AssertionError("it did not happen")


def _active(server: RunningTriton) -> float:
    return server.metric("nv_trt_llm_request_metrics", "active")


def test_a_stream_gives_deltas_and_its_last_content_is_final(server: RunningTriton) -> None:
    responses = ask(server.grpc, _request(), "a-request")
    assert [len(response.tokens) for response in responses] == [1] * 12
    assert [response.final for response in responses] == [False] * 11 + [True]
    assert {response.request_id for response in responses} == {"a-request"}
    assert all(response.tensors["sequence_length"].tolist() == [[1]] for response in responses)
    assert set(responses[0].tensors) == {"output_ids", "sequence_length"}


def test_a_plain_request_has_one_response_with_or_without_the_prompt(server: RunningTriton) -> None:
    expected = tokens_of(ask(server.grpc, _request()))
    (echoed,) = ask(server.grpc, _request(streaming=np.array([[False]])))
    assert echoed.tokens == [*PROMPT, *expected]
    assert echoed.tensors["sequence_length"].tolist() == [[len(PROMPT) + 12]]
    (plain,) = ask(server.grpc, _request(streaming=np.array([[False]]), **_flags("exclude_input_in_output")))
    assert plain.tokens == expected


def test_the_end_id_ends_the_stream_with_an_empty_content(server: RunningTriton) -> None:
    free = tokens_of(ask(server.grpc, _request(30, runtime_top_k=np.array([[50]], np.int32), seed=_seed(3))))
    end_id = free[9]
    request = _request(30, runtime_top_k=np.array([[50]], np.int32), seed=_seed(3))
    responses = ask(server.grpc, {**request, "end_id": np.array([[end_id]], np.int32)})
    assert tokens_of(responses) == free[: free.index(end_id)]
    assert responses[-1].tokens == []
    assert responses[-1].tensors["sequence_length"].tolist() == [[0]]


def _seed(value: int) -> Any:
    return np.array([[value]], np.uint64)


def test_rows_of_a_batch_are_answered_apart_and_end_together(server: RunningTriton) -> None:
    prompts = [PROMPT, [7, 8, 9], [20, 21, 22, 23, 24]]
    alone = [tokens_of(ask(server.grpc, _request(5 + row, prompt))) for row, prompt in enumerate(prompts)]
    width = max(len(prompt) for prompt in prompts)
    batch = {
        "input_ids": np.array([prompt + [0] * (width - len(prompt)) for prompt in prompts], np.int32),
        "input_lengths": np.array([[len(prompt)] for prompt in prompts], np.int32),
        "request_output_len": np.array([[5], [6], [7]], np.int32),
        "streaming": np.array([[True]] * 3),
    }
    responses = ask(server.grpc, batch)
    together: list[list[int]] = [[], [], []]
    for response in responses:
        together[int(response.tensors["batch_index"][0, 0])] += response.tokens
    assert together == alone
    assert [response.final for response in responses].count(True) == 1


def test_one_bad_row_fails_alone(server: RunningTriton) -> None:
    batch = {
        "input_ids": np.array([PROMPT, [9999] * 7], np.int32),
        "input_lengths": np.array([[7], [7]], np.int32),
        "request_output_len": np.array([[5], [5]], np.int32),
        "streaming": np.array([[True]] * 2),
    }
    seen: list[int] = []
    errors = []
    with Stream(server.grpc) as stream:
        stream.send(batch)
        final = False
        while not final:
            try:
                response = stream.next()
            except EngineError as error:
                errors.append(str(error))
                continue
            seen += response.tokens
            final = response.final
    assert seen == tokens_of(ask(server.grpc, _request(5)))
    assert len(errors) == 1
    assert "Token id (9999) is out of range" in errors[0]


def test_several_sequences_carry_their_index(server: RunningTriton) -> None:
    sampling = {"runtime_top_k": np.array([[50]], np.int32), "temperature": np.array([[3.0]], np.float32)}
    both: dict[int, list[int]] = {0: [], 1: []}
    request = _request(seed=_seed(40), num_return_sequences=np.array([[2]], np.int32))
    for response in ask(server.grpc, {**request, **sampling}):
        both[int(response.tensors["sequence_index"][0, 0])] += response.tokens
    for index, tokens in both.items():
        assert tokens == tokens_of(ask(server.grpc, {**_request(seed=_seed(40 + index)), **sampling}))


def test_log_probs_logits_counts_and_metrics_come_when_asked_for(server: RunningTriton) -> None:
    names = ["log_probs", "context_logits", "generation_logits"]
    names += ["perf_metrics", "num_input_tokens", "num_output_tokens"]
    request = _request(4, streaming=np.array([[False]]), **_flags(*(f"return_{name}" for name in names)))
    (response,) = ask(server.grpc, request)
    tensors = response.tensors
    assert tensors["context_logits"].shape == (1, len(PROMPT), VOCAB)
    assert tensors["generation_logits"].shape == (1, 1, 4, VOCAB)
    assert tensors["generation_logits"][0, 0].argmax(-1).tolist() == response.tokens[len(PROMPT) :]
    assert np.allclose(tensors["context_logits"][0, -1], tensors["generation_logits"][0, 0, 0])
    assert tensors["output_log_probs"].shape == (1, 1, 4)
    assert np.allclose(tensors["output_log_probs"].sum(), tensors["cum_log_probs"])
    assert tensors["num_input_tokens"].tolist() == [[7]]
    assert tensors["num_output_tokens"].tolist() == [[11]]
    order = ["arrival_time_ns", "first_scheduled_time_ns", "first_token_time_ns", "last_token_time_ns"]
    instants = [int(tensors[name][0, 0]) for name in order]
    assert instants == sorted(instants)
    assert tensors["kv_cache_alloc_total_blocks"].tolist() == [[2]]


def test_only_the_outputs_that_were_asked_for_are_sent(server: RunningTriton) -> None:
    request = _request(3, **_flags("return_log_probs"))
    (first, *_) = ask(server.grpc, request, outputs=("output_ids", "sequence_length", "cum_log_probs"))
    assert set(first.tensors) == {"output_ids", "sequence_length", "cum_log_probs"}
    for missing_name, present in (("output_ids", "sequence_length"), ("sequence_length", "output_ids")):
        with pytest.raises(EngineError, match=f"{missing_name} tensor must be present in list of output tensors"):
            ask(server.grpc, request, outputs=(present,))


def test_a_closed_call_frees_its_slot_before_its_work_is_done(server: RunningTriton) -> None:
    before = server.metric("nv_trt_llm_general_metrics", "iteration_counter")
    with Stream(server.grpc) as leaving:
        leaving.send(_request(500))
        leaving.next()
    _eventually(lambda: _active(server) == 0)
    assert server.metric("nv_trt_llm_kv_cache_block_metrics", "used") == 0
    assert server.metric("nv_trt_llm_kv_cache_block_metrics", "max") == 4096 / 8
    assert server.metric("nv_trt_llm_general_metrics", "iteration_counter") - before < 490


def test_a_closed_call_harms_no_stream_beside_it(server: RunningTriton) -> None:
    expected = tokens_of(ask(server.grpc, _request(300)))
    with Stream(server.grpc) as staying:
        staying.send(_request(300))
        with Stream(server.grpc) as leaving:
            leaving.send(_request(500))
            leaving.next()
        assert tokens_of(list(staying.until_final())) == expected


def test_a_stop_request_ends_the_one_with_its_id(server: RunningTriton) -> None:
    whole = tokens_of(ask(server.grpc, _request(480)))
    with Stream(server.grpc) as stream, Stream(server.grpc) as other:
        stream.send(_request(480), "to-be-stopped")
        first = [stream.next() for _ in range(3)]
        other.send(_request(1, [1], **_flags("stop")), "to-be-stopped")
        answer = other.next()
        assert answer.final
        assert answer.tensors == {}
        rest = list(stream.until_final())
    tokens = tokens_of([*first, *rest])
    assert 3 <= len(tokens) < 480
    assert tokens == whole[: len(tokens)]


def test_a_stop_without_an_id_is_refused_and_one_for_nobody_is_not(server: RunningTriton) -> None:
    with pytest.raises(EngineError, match="Trying to stop a request but request ID is not provided"):
        ask(server.grpc, _request(1, [1], **_flags("stop")))
    (answer,) = ask(server.grpc, _request(1, [1], **_flags("stop")), "nobody")
    assert answer.tensors == {}


def test_of_equal_ids_the_latest_is_stopped(server: RunningTriton) -> None:
    with Stream(server.grpc) as older, Stream(server.grpc) as newer, Stream(server.grpc) as stopper:
        older.send(_request(480), "twice")
        older.next()
        newer.send(_request(480), "twice")
        newer.next()
        stopper.send(_request(1, [1], **_flags("stop")), "twice")
        stopper.next()
        assert len(tokens_of(list(newer.until_final()))) < 479
        assert len(tokens_of(list(older.until_final()))) == 479


def test_a_lora_miss_says_so_and_a_round_robin_over_more_than_fit_never_fails(server: RunningTriton) -> None:
    with pytest.raises(EngineError, match=r"LoRA task 404 not found in cache\. Please send LoRA weights with request"):
        ask(server.grpc, _request(**_lora(404, weights=False)))
    answers: dict[int, list[int]] = {}
    for _ in range(2):
        for task_id in range(1, 5):
            with pytest.raises(EngineError, match="not found in cache"):
                ask(server.grpc, _request(**_lora(task_id, weights=False)))
            responses = ask(server.grpc, _request(**_lora(task_id, weights=True)))
            assert tokens_of(ask(server.grpc, _request(**_lora(task_id, weights=False)))) == tokens_of(responses)
            assert answers.setdefault(task_id, tokens_of(responses)) == tokens_of(responses)
    assert len({tuple(tokens) for tokens in answers.values()}) > 1


def test_lora_and_prompt_table_travel_in_one_request(server: RunningTriton) -> None:
    rows = load_file(TINY / "adapters" / "tool-ptuning" / "adapter_model.safetensors")["prompt_embeddings"]
    rows = rows.astype(np.float32)
    prompt = [*range(VOCAB, VOCAB + len(rows)), *PROMPT]
    table = {
        "prompt_embedding_table": rows[None],
        "prompt_vocab_size": np.array([[len(rows)]], np.int32),
        "prompt_table_extra_ids": np.array([[77] * len(rows) + [0] * len(PROMPT)], np.uint64),
    }
    plain = tokens_of(ask(server.grpc, _request()))
    tuned = tokens_of(ask(server.grpc, _request(prompt=prompt, **table)))
    both = tokens_of(ask(server.grpc, _request(prompt=prompt, **table, **_lora(9, weights=True))))
    assert len({tuple(plain), tuple(tuned), tuple(both)}) == 3
    with pytest.raises(EngineError, match="Input token extra ids must be provided when enabling kv cache reuse"):
        ask(server.grpc, _request(prompt=prompt, prompt_embedding_table=rows[None]))
    large: dict[str, Any] = {
        "prompt_embedding_table": np.zeros((1, 200, HIDDEN), np.float32),
        "prompt_table_extra_ids": np.zeros((1, 7), np.uint64),
    }
    with pytest.raises(EngineError, match="Prompt vocab size200 is larger than max prompt vocab size of 128"):
        ask(server.grpc, {**_request(), **large})


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        ({"beam_width": np.array([[2]], np.int32)}, r"Requested beam width \(2\)"),
        ({"draft_input_ids": np.array([[1, 2]], np.int32)}, "exceeds maximum draft tokens length"),
        ({"lookahead_window_size": np.array([[7]], np.int32)}, "Cannot set the request lookahead decoding"),
        ({"encoder_input_features": np.ones((1, 2, 2), np.float32)}, "encoder_input_features is not supported"),
        ({"guided_decoding_guide_type": np.array([[b"json"]], object)}, "GuidedDecoder is not setup"),
        ({"stop_words_list": np.array([[[1, 2], [3, -1]]], np.int32)}, "Sparse list must not have out-of-bound"),
        ({"end_id": np.array([[VOCAB]], np.int32)}, r"EndId \(908\) is not within acceptable range"),
    ],
    ids=["beams", "draft", "lookahead", "encoder", "guide", "stop words", "end id"],
)
def test_what_is_refused_harms_no_stream_beside_it(server: RunningTriton, tensors: Arrays, text: str) -> None:
    expected = tokens_of(ask(server.grpc, _request(100)))
    with Stream(server.grpc) as stream:
        stream.send(_request(100))
        first = stream.next()
        with pytest.raises(EngineError, match=text):
            ask(server.grpc, {**_request(), **tensors})
        assert tokens_of([first, *stream.until_final()]) == expected


def test_another_element_type_is_refused_by_triton_itself(server: RunningTriton) -> None:
    with pytest.raises(EngineError, match="data-type is 'FP16', but model 'tensorrt_llm' expects 'FP32'"):
        ask(server.grpc, _request(**_lora(1, weights=True, dtype=np.float16)))


def test_many_streams_at_once_each_get_what_they_get_alone(server: RunningTriton) -> None:
    prompts = [[3 + index, 50, 60 + index, 7] for index in range(24)]
    alone = [tokens_of(ask(server.grpc, _request(prompt=prompt))) for prompt in prompts]
    together: list[list[int]] = [[] for _ in prompts]

    def one(index: int) -> None:
        together[index] = tokens_of(ask(server.grpc, _request(prompt=prompts[index])))

    threads = [threading.Thread(target=one, args=(index,)) for index in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_metadata_and_metrics_are_tensorrt_llms(server: RunningTriton) -> None:
    client = grpcclient.InferenceServerClient(server.grpc)
    metadata = client.get_model_metadata("tensorrt_llm", as_json=True)
    shapes = {entry["name"]: (entry["datatype"], entry["shape"]) for entry in metadata["inputs"]}
    assert len(shapes) == 62
    assert shapes["lora_weights"] == ("FP32", ["-1", "-1", "-1"])
    assert shapes["lora_config"] == ("INT32", ["-1", "-1", "-1"])
    assert shapes["stop_words_list"] == ("INT32", ["-1", "2", "-1"])
    assert shapes["seed"] == ("UINT64", ["-1", "1"])
    assert len(metadata["outputs"]) == 21
    client.close()
    with urllib.request.urlopen(server.metrics_url, timeout=5) as response:
        text = response.read().decode()
    for label in ("active", "max", "scheduled", "context", "waiting"):
        assert f'nv_trt_llm_request_metrics{{request_type="{label}"}}' in text
    for label in ("max", "free", "used", "tokens_per", "reused", "fraction"):
        assert f'nv_trt_llm_kv_cache_block_metrics{{kv_cache_block_type="{label}"}}' in text
    assert server.metric("nv_trt_llm_general_metrics", "iteration_counter") > 0


def test_a_bfloat16_engine_takes_bfloat16_weights(tmp_path: Path) -> None:
    write_engine(TINY, "tiny", tmp_path, EngineSettings(dtype=Dtype.BFLOAT16, kv_cache_tokens=2048, threads=1))
    with triton(tmp_path, 18160, tmp_path / "triton.log") as running:
        plain = tokens_of(ask(running.grpc, _request()))
        tuned = tokens_of(ask(running.grpc, _request(**_lora(1, weights=True, dtype=ml_dtypes.bfloat16))))
        again = tokens_of(ask(running.grpc, _request(**_lora(1, weights=False))))
        assert plain != tuned == again
        table = np.zeros((1, 2, HIDDEN), ml_dtypes.bfloat16)
        extra = np.array([[5, 5, *[0] * 7]], np.uint64)
        request = _request(prompt=[VOCAB, VOCAB + 1, *PROMPT], prompt_table_extra_ids=extra)
        assert len(tokens_of(ask(running.grpc, {**request, "prompt_embedding_table": table}))) == 12
        with pytest.raises(EngineError, match="data-type is 'FP32', but model 'tensorrt_llm' expects 'BF16'"):
            ask(running.grpc, _request(**_lora(2, weights=True)))


def test_an_engine_that_cannot_load_says_why_in_one_sentence(tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(TINY, base, ignore=shutil.ignore_patterns("adapters"))
    write_engine(base, "tiny", tmp_path / "engine", EngineSettings(kv_cache_tokens=2048))
    (base / "model.safetensors").write_bytes(b"not a checkpoint")
    log = tmp_path / "triton.log"
    with pytest.raises(RuntimeError, match="tritonserver ended"), triton(tmp_path / "engine", 18170, log):
        pass
    assert f"weights of checkpoint {base} cannot be read" in log.read_text()


def test_the_stub_of_this_python_is_the_one_that_runs(server: RunningTriton) -> None:
    assert sys.version_info[:2] in ((3, 11), (3, 12))
    assert "Traceback" not in server.log.read_text()
