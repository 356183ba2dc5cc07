"""
Every way of turning an adapter away: its code, and a sentence that names the culprit and what to do instead.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from gateway.adapters.convert import convert
from gateway.adapters.directory import find_adapter
from gateway.adapters.refusal import AdapterRefused, RefusalCode
from gateway.domain.manifest import Dtype, EngineManifest
from tests.unit.adapters.bases import TestBase
from tests.unit.adapters.engines import HIDDEN
from tests.unit.adapters.handmade import (
    PREFIX,
    engine,
    ia3_config,
    ia3_tensors,
    lora_config,
    lora_tensors,
    prompt_config,
    prompt_tensors,
    write,
)

Tensors = dict[str, np.ndarray]
A = f"{PREFIX}.0.self_attn.q_proj.lora_A.weight"


class Case(NamedTuple):
    """What is handed in, to which engine, and what is answered: the code, and words of message and of hint."""

    config: dict[str, Any]
    tensors: Tensors
    code: RefusalCode
    message: str
    hint: str
    engine: EngineManifest = engine()


def lora(**tensors: np.ndarray | None) -> Tensors:
    """The plain adapter with tensors replaced, added or taken away."""
    changed: dict[str, np.ndarray | None] = {**lora_tensors(), **tensors}
    return {name: value for name, value in changed.items() if value is not None}


def spoiled(value: float) -> np.ndarray:
    tensor = lora_tensors()[A]
    tensor[3, 7] = value
    return tensor


def zero_b() -> Tensors:
    return {name: tensor * (0 if "lora_B" in name else 1) for name, tensor in lora_tensors().items()}


CASES = {
    "another base by name": Case(
        lora_config(base_model_name_or_path="/home/a/models/other-7b"),
        lora(),
        RefusalCode.BASE_MISMATCH,
        "trained on other-7b, not on small-llama",
        "--any-base-name",
    ),
    "prefix tuning": Case(
        {"peft_type": "PREFIX_TUNING"},
        prompt_tensors(),
        RefusalCode.PEFT_TYPE_UNSUPPORTED,
        "PREFIX_TUNING",
        "train prompt tuning or p-tuning",
    ),
    "a type nobody has heard of": Case(
        {"peft_type": "NEWEST"}, lora(), RefusalCode.PEFT_TYPE_UNSUPPORTED, "NEWEST", "Train LoRA"
    ),
    "boft": Case({"peft_type": "BOFT"}, lora(), RefusalCode.PEFT_TYPE_UNSUPPORTED, "BOFT", "LoRA or DoRA"),
    "a classifier": Case(
        lora_config(task_type="SEQ_CLS"), lora(), RefusalCode.OPTION_UNSUPPORTED, "SEQ_CLS", "CAUSAL_LM"
    ),
    "modules_to_save": Case(
        lora_config(modules_to_save=["lm_head"]),
        lora(),
        RefusalCode.OPTION_UNSUPPORTED,
        "modules_to_save",
        "Train without modules_to_save",
    ),
    "lora_bias": Case(
        lora_config(lora_bias=True), lora(), RefusalCode.OPTION_UNSUPPORTED, "lora_bias", "lora_bias=False"
    ),
    "trained biases": Case(
        lora_config(bias="lora_only"), lora(), RefusalCode.OPTION_UNSUPPORTED, "bias", "bias='none'"
    ),
    "fan_in_fan_out": Case(
        lora_config(fan_in_fan_out=True), lora(), RefusalCode.OPTION_UNSUPPORTED, "fan_in_fan_out", "linear layers"
    ),
    "alora": Case(
        lora_config(alora_invocation_tokens=[5, 6]),
        lora(),
        RefusalCode.OPTION_UNSUPPORTED,
        "alora_invocation_tokens",
        "plain LoRA",
    ),
    "trainable tokens": Case(
        lora_config(trainable_token_indices=[1]),
        lora(),
        RefusalCode.OPTION_UNSUPPORTED,
        "trainable_token_indices",
        "without trainable_token_indices",
    ),
    "replicated layers": Case(
        lora_config(layer_replication=[[0, 2]]),
        lora(),
        RefusalCode.OPTION_UNSUPPORTED,
        "layer_replication",
        "the base as it is",
    ),
    "parameters of experts": Case(
        lora_config(target_parameters=["experts.w1"]),
        lora(),
        RefusalCode.OPTION_UNSUPPORTED,
        "target_parameters",
        "target_modules",
    ),
    "an option this converter has never heard of": Case(
        lora_config(kasa_config={"alpha": 1}),
        lora(),
        RefusalCode.OPTION_UNSUPPORTED,
        "kasa_config",
        "Train without kasa_config",
    ),
    "pissa as trained": Case(
        lora_config(init_lora_weights="pissa_niter_16"),
        lora(),
        RefusalCode.BASE_WEIGHTS_ALTERED,
        "pissa_niter_16",
        "path_initial_model_for_weight_conversion",
    ),
    "olora as trained": Case(
        lora_config(init_lora_weights="olora"), lora(), RefusalCode.BASE_WEIGHTS_ALTERED, "olora", "twice the rank"
    ),
    "a rank that is no number": Case(
        lora_config(r="8"), lora(), RefusalCode.INVALID_CONFIG, "r must be a whole number", "save_pretrained"
    ),
    "an endless alpha": Case(
        lora_config(lora_alpha=float("inf")),
        lora(),
        RefusalCode.INVALID_CONFIG,
        "lora_alpha must be a finite number",
        "save_pretrained",
    ),
    "a pattern that is none": Case(
        lora_config(rank_pattern={"q_proj(": 4}),
        lora(),
        RefusalCode.INVALID_CONFIG,
        "no regular expression",
        "save_pretrained",
    ),
    "no virtual tokens": Case(
        prompt_config(num_virtual_tokens=None),
        prompt_tensors(),
        RefusalCode.INVALID_CONFIG,
        "num_virtual_tokens",
        "save_pretrained",
    ),
    "an encoder-decoder's table": Case(
        prompt_config(num_transformer_submodules=2),
        prompt_tensors(),
        RefusalCode.INVALID_CONFIG,
        "num_transformer_submodules",
        "save_pretrained",
    ),
    "an embedding's LoRA": Case(
        lora_config(),
        lora(**{"base_model.model.model.embed_tokens.lora_embedding_A": np.ones((8, 160), "f4")}),
        RefusalCode.MODULE_UNSUPPORTED,
        "embed_tokens.lora_embedding_A",
        "embed_tokens, lm_head and modules_to_save",
    ),
    "an output layer": Case(
        lora_config(),
        lora(**{"base_model.model.lm_head.weight": np.ones((160, HIDDEN), "f4")}),
        RefusalCode.MODULE_UNSUPPORTED,
        "lm_head.weight",
        "engine of their own",
    ),
    "fused projections": Case(
        lora_config(),
        lora(**{f"{PREFIX}.0.self_attn.qkv_proj.lora_A.weight": np.ones((8, HIDDEN), "f4")}),
        RefusalCode.MODULE_UNSUPPORTED,
        "self_attn.qkv_proj",
        "q_proj",
    ),
    "a tensor from nowhere": Case(
        lora_config(),
        lora(**{"base_model.model.model.layers.0.self_attn.q_proj.lora_C.weight": np.ones((8, 8), "f4")}),
        RefusalCode.TENSOR_UNKNOWN,
        "lora_C",
        "save_pretrained",
    ),
    "a magnitude without DoRA": Case(
        lora_config(),
        lora(**{f"{PREFIX}.0.self_attn.q_proj.lora_magnitude_vector": np.ones(48, "f4")}),
        RefusalCode.TENSOR_UNKNOWN,
        "lora_magnitude_vector",
        "use_dora",
    ),
    "one layer under two names": Case(
        lora_config(),
        lora(**{"base_model.model.layers.0.self_attn.q_proj.lora_A.weight": np.ones((8, HIDDEN), "f4")}),
        RefusalCode.TENSOR_UNKNOWN,
        "model.layers.0.self_attn.q_proj twice",
        "save_pretrained",
    ),
    "an IA3 scale among LoRA": Case(
        ia3_config(),
        ia3_tensors() | {A: np.ones((8, HIDDEN), "f4")},
        RefusalCode.TENSOR_UNKNOWN,
        "is IA3 but holds",
        "adapter_config.json",
    ),
    "B is missing": Case(
        lora_config(),
        lora(**{A.replace("lora_A", "lora_B"): None}),
        RefusalCode.TENSOR_MISSING,
        "lacks lora_B for model.layers.0.self_attn.q_proj",
        "incomplete",
    ),
    "a whole layer is missing": Case(
        lora_config(),
        {name: tensor for name, tensor in lora().items() if ".2.mlp" not in name},
        RefusalCode.TENSOR_MISSING,
        "model.layers.2.mlp.down_proj",
        "incomplete",
    ),
    "a p-tuning encoder in part": Case(
        prompt_config(peft_type="P_TUNING"),
        {"embedding.weight": np.ones((6, HIDDEN), "f4")},
        RefusalCode.TENSOR_MISSING,
        "mlp_head.0.weight",
        "save_pretrained",
    ),
    "an LSTM encoder": Case(
        prompt_config(peft_type="P_TUNING"),
        {"lstm_head.weight_ih_l0": np.ones((6, 6), "f4")},
        RefusalCode.OPTION_UNSUPPORTED,
        "LSTM",
        "save_pretrained",
    ),
    "a module the engine lacks": Case(
        lora_config(),
        lora(),
        RefusalCode.MODULE_NOT_ENABLED,
        "built without mlp_4h_to_h",
        "Build the engine with mlp_4h_to_h",
        engine(lora={"modules": ("attn_q", "attn_k", "attn_v")}),
    ),
    "a down scale where up cannot take it": Case(
        ia3_config(),
        ia3_tensors(),
        RefusalCode.MODULE_NOT_ENABLED,
        "has no mlp_gate",
        "mlp_gate",
        engine(lora={"modules": ("attn_k", "mlp_4h_to_h")}),
    ),
    "a deeper base": Case(
        lora_config(target_modules=".*"),
        lora(**{f"{PREFIX}.3.self_attn.q_proj.lora_A.weight": np.ones((8, HIDDEN), "f4")}),
        RefusalCode.LAYER_OUT_OF_RANGE,
        "layers 0 to 2",
        "another base",
    ),
    "a wider base": Case(
        lora_config(),
        lora(**{A: np.ones((8, 64), "f4")}),
        RefusalCode.SHAPE_MISMATCH,
        "[8, 64]; small-llama needs [8, 48]",
        "another base",
    ),
    "a table for a wider base": Case(
        prompt_config(),
        prompt_tensors(hidden=64),
        RefusalCode.SHAPE_MISMATCH,
        "[6, 64]; small-llama needs [6, 48]",
        "another base",
    ),
    "a table of other length than said": Case(
        prompt_config(), prompt_tensors(rows=7), RefusalCode.SHAPE_MISMATCH, "[7, 48]", "base"
    ),
    "an IA3 scale of the wrong length": Case(
        ia3_config(),
        ia3_tensors() | {f"{PREFIX}.0.self_attn.k_proj.ia3_l": np.ones((17, 1), "f4")},
        RefusalCode.SHAPE_MISMATCH,
        "[17, 1]",
        "another base",
    ),
    "a rank other than said": Case(
        lora_config(r=4), lora(), RefusalCode.RANK_MISMATCH, "rank 8, but the configuration says 4", "rank_pattern"
    ),
    "a rank above the engine's": Case(
        lora_config(r=32),
        lora_tensors(rank=32),
        RefusalCode.RANK_TOO_LARGE,
        "takes ranks up to 16",
        "r=16 or less",
        engine(lora={"max_rank": 16}),
    ),
    "an input scale that cannot be moved": Case(
        ia3_config(target_modules=["o_proj"], feedforward_modules=["o_proj"]),
        {f"{PREFIX}.{layer}.self_attn.o_proj.ia3_l": np.full((1, 48), 2.0, "f4") for layer in range(3)},
        RefusalCode.INPUT_SCALE_UNSUPPORTED,
        "input of o_proj",
        "feedforward_modules=['down_proj']",
    ),
    "an engine without LoRA": Case(
        lora_config(),
        lora(),
        RefusalCode.LORA_UNSUPPORTED,
        "built without LoRA",
        "train prompt tuning",
        engine(lora=None),
    ),
    "DoRA on an engine without it": Case(
        lora_config(use_dora=True),
        lora(),
        RefusalCode.DORA_UNSUPPORTED,
        "would drop the magnitude",
        "train plain LoRA",
        engine(lora={"dora": False}),
    ),
    "IA3 on an engine of three columns": Case(
        ia3_config(),
        ia3_tensors(),
        RefusalCode.DORA_UNSUPPORTED,
        "DoRA path",
        "Build the engine with DoRA",
        engine(lora={"config_columns": 3}),
    ),
    "DoRA without the base's weights": Case(
        lora_config(use_dora=True),
        lora(),
        RefusalCode.BASE_UNREADABLE,
        "neither model.safetensors nor model.safetensors.index.json",
        "/nowhere/small-llama",
    ),
    "an engine without tables": Case(
        prompt_config(),
        prompt_tensors(),
        RefusalCode.PROMPT_TABLE_UNSUPPORTED,
        "without a prompt table",
        "max_prompt_embedding_table_size",
        engine(prompt_table=None),
    ),
    "more virtual tokens than fit": Case(
        prompt_config(num_virtual_tokens=33),
        prompt_tensors(rows=33),
        RefusalCode.TOO_MANY_VIRTUAL_TOKENS,
        "33 virtual tokens",
        "num_virtual_tokens=32 or fewer",
    ),
    "larger than the engine's cache": Case(
        lora_config(),
        lora(),
        RefusalCode.ADAPTER_TOO_LARGE,
        "more than the engine's adapter cache holds (4,096)",
        "smaller rank",
        engine(lora={"cache_bytes": 4096}),
    ),
    "not a number": Case(
        lora_config(), lora(**{A: spoiled(float("nan"))}), RefusalCode.NOT_FINITE, "holds nan at [3, 7]", "diverged"
    ),
    "endless": Case(
        lora_config(), lora(**{A: spoiled(float("-inf"))}), RefusalCode.NOT_FINITE, "holds -inf at [3, 7]", "diverged"
    ),
    "a table with an endless value": Case(
        prompt_config(),
        {"prompt_embeddings": np.full((6, HIDDEN), np.inf, "f4")},
        RefusalCode.NOT_FINITE,
        "prompt_embeddings holds inf",
        "diverged",
    ),
    "too large for half precision": Case(
        lora_config(),
        lora(**{A: spoiled(70000.0)}),
        RefusalCode.VALUE_OUT_OF_RANGE,
        "7e+04 in model.layers.0.self_attn.q_proj is beyond 65504",
        "earlier checkpoint",
        engine(lora={"dtype": Dtype.FLOAT16}),
    ),
    "too large for sense": Case(
        lora_config(),
        lora(**{A: spoiled(1e30)}),
        RefusalCode.VALUE_OUT_OF_RANGE,
        "beyond 1e+06",
        "earlier checkpoint",
    ),
    "never trained": Case(lora_config(), zero_b(), RefusalCode.NO_EFFECT, "changes nothing", "after training"),
    "an alpha of zero": Case(
        lora_config(lora_alpha=0), lora(), RefusalCode.NO_EFFECT, "changes nothing", "after training"
    ),
    "scales that are all one": Case(
        ia3_config(),
        {name: np.ones_like(tensor) for name, tensor in ia3_tensors().items()},
        RefusalCode.NO_EFFECT,
        "changes nothing",
        "after training",
    ),
    "whole numbers": Case(
        lora_config(),
        lora(**{A: np.ones((8, HIDDEN), "i4")}),
        RefusalCode.DTYPE_UNSUPPORTED,
        "element type I32",
        "float32, float16 or bfloat16",
    ),
}


def refused(act: Callable[[], object]) -> AdapterRefused:
    with pytest.raises(AdapterRefused) as caught:
        act()
    return caught.value


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_an_adapter_is_refused_by_name(case: Case, tmp_path: Path, out: Path) -> None:
    directory = write(tmp_path / "adapter", case.config, case.tensors)
    error = refused(lambda: convert([find_adapter(directory)], case.engine, out))
    assert error.code == case.code
    assert case.message in error.message
    assert case.hint in error.hint
    assert error.message.endswith(".")
    assert error.hint.endswith(".")


def test_every_refusal_of_the_converter_has_a_case() -> None:
    elsewhere = {
        # Of directories, files and processes: test_directory.py, test_safetensors_file.py, test_bounded.py.
        RefusalCode.MISSING_FILE,
        RefusalCode.PICKLE_WEIGHTS,
        RefusalCode.SYMLINK_OUTSIDE,
        RefusalCode.NOT_A_REGULAR_FILE,
        RefusalCode.INVALID_SAFETENSORS,
        RefusalCode.CONVERSION_FAILED,
        RefusalCode.CONVERSION_TIMEOUT,
        # Below.
        RefusalCode.COMBINATION_UNSUPPORTED,
        RefusalCode.DORA_BIASED_LAYER,
    }
    assert {case.code for case in CASES.values()} == set(RefusalCode) - elsewhere


def test_the_untouched_adapters_are_taken(tmp_path: Path, out: Path) -> None:
    """What the cases above spoil is good before."""
    for index, (config, tensors) in enumerate(
        ((lora_config(), lora()), (prompt_config(), prompt_tensors()), (ia3_config(), ia3_tensors()))
    ):
        directory = write(tmp_path / str(index), config, tensors)
        assert convert([find_adapter(directory)], engine(), out).reports[0].notes == ()


def test_a_waived_base_name_and_an_unsaid_one_are_noted(tmp_path: Path, out: Path) -> None:
    other = write(tmp_path / "other", lora_config(base_model_name_or_path="x/other-7b"), lora())
    waived = convert([find_adapter(other)], engine(), out, any_base_name=True)
    assert "other-7b" in waived.reports[0].notes[0]
    silent = write(tmp_path / "silent", lora_config(base_model_name_or_path=""), lora())
    assert "does not say" in convert([find_adapter(silent)], engine(), out).reports[0].notes[0]


@pytest.mark.parametrize(
    "pair",
    [
        ((lora_config(), lora_tensors()), (ia3_config(), ia3_tensors())),
        ((prompt_config(), prompt_tensors()), (prompt_config(), prompt_tensors())),
    ],
    ids=["two of the LoRA family", "two tables"],
)
def test_two_adapters_of_one_kind_are_refused(
    pair: tuple[tuple[dict[str, Any], Tensors], ...], tmp_path: Path, out: Path
) -> None:
    files = [find_adapter(write(tmp_path / str(index), *made)) for index, made in enumerate(pair)]
    error = refused(lambda: convert(files, engine(), out))
    assert error.code is RefusalCode.COMBINATION_UNSUPPORTED
    assert "two profiles" in error.hint


def test_dora_on_a_layer_with_a_bias_is_refused(qwen: TestBase, tmp_path: Path, out: Path) -> None:
    """peft leaves the bias unscaled, the engine scales it: the answers differ."""
    config = lora_config(use_dora=True, target_modules=["q_proj"], base_model_name_or_path=str(qwen.directory))
    tensors = lora_tensors(leaves=("q_proj",)) | {
        f"{PREFIX}.{layer}.self_attn.q_proj.lora_magnitude_vector": np.ones(48, "f4") for layer in range(3)
    }
    error = refused(lambda: convert([find_adapter(write(tmp_path / "a", config, tensors))], qwen.engine, out))
    assert error.code is RefusalCode.DORA_BIASED_LAYER
    assert "self_attn.q_proj, which has a bias" in error.message
    assert "o_proj" in error.hint


def test_dora_against_another_checkpoint_than_the_engines_is_refused(
    llama: TestBase, tmp_path: Path, out: Path
) -> None:
    config = lora_config(use_dora=True, target_modules=["q_proj"], base_model_name_or_path=llama.directory.name)
    tensors = lora_tensors(leaves=("q_proj",)) | {
        f"{PREFIX}.{layer}.self_attn.q_proj.lora_magnitude_vector": np.ones(48, "f4") for layer in range(3)
    }
    directory = write(tmp_path / "a", config, tensors)
    other = msgspec.structs.replace(llama.engine.base, fingerprint="sha256:" + "1" * 64)
    error = refused(lambda: convert([find_adapter(directory)], engine(base=other), out))
    assert error.code is RefusalCode.BASE_UNREADABLE
    assert "not the file the engine was built from" in error.message
    assert convert([find_adapter(directory)], engine(base=llama.engine.base), out).lora is not None
