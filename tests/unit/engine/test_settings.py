"""The manifest and the parameters an engine is started with, and the metrics it shows."""

import json
from pathlib import Path

import pytest
from tailor_engine.errors import EngineLoadError
from tailor_engine.kv_blocks import PoolStats
from tailor_engine.manifest import read_manifest, read_options
from tailor_engine.metrics import readings
from tailor_engine.stats import Stats

from build.reference_engine import EngineBuildError, EngineSettings, fill_template, main, write_engine

TINY = Path(__file__).parents[3] / "build" / "tiny"


def test_parameters_are_read_under_tensorrt_llms_names() -> None:
    options = read_options(
        {
            "max_tokens_in_paged_kv_cache": "4096",
            "max_queue_size": "7",
            "exclude_input_in_output": "true",
            "normalize_log_probs": "false",
            "threads": "${threads}",
            "max_num_tokens": "",
            "gpt_model_type": "inflight_fused_batching",
        }
    )
    assert (options.kv_cache_tokens, options.max_queue_size, options.threads) == (4096, 7, 0)
    assert options.exclude_input_in_output
    assert not options.normalize_log_probs


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({}, "a parameter of config.pbtxt does not fit.*kv_cache_tokens"),
        ({"max_tokens_in_paged_kv_cache": "many"}, r"a parameter of config\.pbtxt does not fit"),
        ({"max_tokens_in_paged_kv_cache": "0"}, "kv_cache_tokens of config.pbtxt is 0; it must be at least 1"),
    ],
)
def test_wrong_parameters_stop_the_load_in_one_sentence(parameters: dict[str, str], text: str) -> None:
    with pytest.raises(EngineLoadError, match=text) as refused:
        read_options(parameters)
    assert "\n" not in str(refused.value)


def test_an_engine_directory_is_whole_and_writing_it_again_touches_nothing(tmp_path: Path) -> None:
    manifest = write_engine(TINY, "tiny", tmp_path, EngineSettings())
    assert read_manifest(tmp_path).vocab_size == manifest.vocab_size == 908
    config = (tmp_path / "model_repository" / "tensorrt_llm" / "config.pbtxt").read_text()
    assert "${" not in config
    assert f'string_value: "{tmp_path}"' in config
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert any(path.name == "model.py" for path in files)
    write_engine(TINY, "tiny", tmp_path, EngineSettings())
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == files


def test_code_that_is_gone_from_the_template_goes_from_the_engine(tmp_path: Path) -> None:
    write_engine(TINY, "tiny", tmp_path, EngineSettings())
    left_over = tmp_path / "model_repository" / "tensorrt_llm" / "1" / "tailor_engine" / "old.py"
    left_over.write_text("")
    write_engine(TINY, "tiny", tmp_path, EngineSettings())
    assert not left_over.exists()


def test_settings_reach_manifest_and_config(tmp_path: Path) -> None:
    arguments = ["--checkpoint", str(TINY), "--name", "t", "--output", str(tmp_path), "--lora-cache-bytes", "777"]
    arguments += ["--max-batch-size", "5", "--no-kv-reuse", "--dtype", "bfloat16", "--threads", "3"]
    arguments += ["--prompt-table-rows", "9", "--kv-cache-tokens", "2048"]
    assert main(arguments) == 0
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["lora"]["cache_bytes"] == 777
    assert manifest["max_batch_size"] == 5
    assert manifest["kv_reuse"]["enabled"] is False
    assert manifest["prompt_table"] == {"dtype": "bfloat16", "max_rows": 9}
    config = (tmp_path / "model_repository" / "tensorrt_llm" / "config.pbtxt").read_text()
    assert '"lora_weights" data_type: TYPE_BF16' in config
    assert '"prompt_embedding_table" data_type: TYPE_BF16' in config
    assert "max_batch_size: 5" in config
    assert 'key: "threads" value { string_value: "3" }' in config
    assert 'key: "max_tokens_in_paged_kv_cache" value { string_value: "2048" }' in config


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (EngineSettings(max_total_tokens=2000), "--max-total-tokens 2000 is more than the 1024 positions"),
        (EngineSettings(kv_cache_tokens=100), "--kv-cache-tokens 100 is too little for one request of 512 tokens"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: EngineSettings, text: str, tmp_path: Path) -> None:
    with pytest.raises(EngineBuildError, match=text):
        write_engine(TINY, "tiny", tmp_path, settings)


def test_a_directory_without_a_model_is_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--checkpoint", str(tmp_path), "--name", "x", "--output", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error == (
        f"error: {tmp_path} is no model directory (No such file or directory: config.json); "
        "prepare the base model first\n"
    )


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"surprise": 1}, "does not fit: Object contains unknown field `surprise`"),
        ({"engine": {"kind": "tensorrt_llm", "version": "1"}}, "is of a tensorrt_llm engine"),
        ({"dtype": "float8"}, "has dtype float8"),
    ],
)
def test_a_manifest_of_something_else_is_refused(change: dict[str, object], text: str, tmp_path: Path) -> None:
    write_engine(TINY, "tiny", tmp_path, EngineSettings())
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(EngineLoadError, match=text):
        read_manifest(tmp_path)


def test_a_missing_manifest_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(EngineLoadError, match=r"write it with python -m build\.reference_engine"):
        read_manifest(tmp_path)


def test_template_and_values_must_name_the_same() -> None:
    assert fill_template("a ${b} c", {"b": "x"}) == "a x c"
    with pytest.raises(EngineBuildError, match="differ in: b, d"):
        fill_template("a ${b} c", {"d": "x"})


def test_metrics_have_tensorrt_llms_names_and_labels() -> None:
    stats = Stats(9, 64, 7, 2, 3, 33, 123, 32, PoolStats(100, 75, 25, 11))
    shown = {(reading.family, reading.label): reading.value for reading in readings(stats, 5.0)}
    requests = {label: value for (family, label), value in shown.items() if family == "nv_trt_llm_request_metrics"}
    blocks = {label: value for (family, label), value in shown.items() if "kv_cache_block" in family}
    assert requests == {"active": 9, "max": 64, "scheduled": 7, "context": 2, "waiting": 2}
    assert blocks == {"max": 100, "free": 75, "used": 25, "tokens_per": 32, "reused": 11, "fraction": 0.25}
    assert shown["nv_trt_llm_general_metrics", "iteration_counter"] == 123
    assert shown["nv_trt_llm_inflight_batcher_metrics", "total_context_tokens"] == 33
    assert shown["nv_trt_llm_inflight_batcher_metrics", "generation_requests"] == 5
