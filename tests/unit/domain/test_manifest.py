"""
Engine manifests: read exactly, refused with file and key, and what makes engines share derived tensors.
"""

import json
from pathlib import Path

import msgspec
import pytest

from gateway.domain.manifest import Base, Dtype, EngineKind, KvReuse, ManifestError, PromptTableAbility, load_manifest
from tests.unit.domain.making import MANIFEST, manifest


def written(tmp_path: Path, **changes: object) -> Path:
    document = msgspec.to_builtins(MANIFEST) | changes
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not ...}))
    return path


def test_a_manifest_is_read_as_it_was_written(tmp_path):
    assert load_manifest(written(tmp_path)) == MANIFEST


def test_an_engine_may_take_neither_adapters_nor_virtual_tokens(tmp_path):
    assert load_manifest(written(tmp_path, lora=None, prompt_table=None)).lora is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"colour": "red"}, ["colour"], id="a key nobody knows"),
        pytest.param({"vocab_size": ...}, ["vocab_size"], id="a key that is missing"),
        pytest.param({"vocab_size": "933"}, ["vocab_size", "int"], id="a number written as text"),
        pytest.param({"dtype": "float8"}, ["dtype", "float8"], id="a type nobody has"),
        pytest.param({"kv_reuse": {"enabled": True}}, ["tokens_per_block"], id="half an object"),
        pytest.param({"manifest_version": 2}, ["version 2", "reads 1"], id="a version of tomorrow"),
    ],
)
def test_what_does_not_fit_is_refused_with_file_and_key(tmp_path, changes, words):
    path = written(tmp_path, **changes)
    with pytest.raises(ManifestError) as refusal:
        load_manifest(path)
    assert all(word in str(refusal.value) for word in [str(path), *words])


def test_a_file_that_is_missing_says_what_to_do(tmp_path):
    with pytest.raises(ManifestError, match="build the engine first"):
        load_manifest(tmp_path / "manifest.json")


def test_a_file_that_is_no_json_is_refused(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_text("{")
    with pytest.raises(ManifestError, match="does not fit"):
        load_manifest(path)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        pytest.param({"max_batch_size": 8}, True, id="engines that differ in batch size share tensors"),
        pytest.param({"kv_reuse": KvReuse(enabled=False, tokens_per_block=32)}, True, id="or in KV reuse"),
        pytest.param(
            {"base": Base(name="tiny", architecture="", checkpoint="/elsewhere", fingerprint="sha256:00")},
            True,
            id="or in where the checkpoint lies",
        ),
        pytest.param(
            {"base": Base(name="tiny", architecture="", checkpoint="", fingerprint="sha256:01")}, False, id="not a base"
        ),
        pytest.param({"dtype": Dtype.FLOAT16}, False, id="nor an element type"),
        pytest.param({"engine": EngineKind(kind="tensorrt-llm", version="1")}, False, id="nor a kind of engine"),
        pytest.param(
            {"prompt_table": PromptTableAbility(dtype=Dtype.FLOAT16, max_rows=128)}, False, id="nor a table's type"
        ),
    ],
)
def test_which_engines_share_derived_tensors(changes, same):
    assert (manifest(**changes).tensor_key == MANIFEST.tensor_key) is same


@pytest.mark.parametrize(
    ("dtype", "triton", "size"), [("float32", "FP32", 4), ("float16", "FP16", 2), ("bfloat16", "BF16", 2)]
)
def test_element_types(dtype, triton, size):
    assert (Dtype(dtype).triton, Dtype(dtype).itemsize) == (triton, size)
