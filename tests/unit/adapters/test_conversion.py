"""
What is converted answers as peft does: the engine's formula on the converted files against peft's own forward pass.
"""

from pathlib import Path

import msgspec
import pytest
import torch
from peft import IA3Config, LoraConfig, PeftConfig, PromptEncoderConfig, PromptTuningConfig
from safetensors.torch import load_file, save_file

from gateway.adapters.convert import convert
from gateway.adapters.directory import AdapterFiles, find_adapter
from gateway.domain.manifest import Dtype, EngineManifest
from tests.unit.adapters.bases import TestBase, ids, make_base, save, tune
from tests.unit.adapters.engines import LAYERS
from tests.unit.adapters.executor import logits, read_lora, read_table

TOLERANCE = 1e-4
EFFECT = 0.1
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LLAMA_KINDS: dict[str, PeftConfig] = {
    "lora": LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=ALL),
    "lora of rank 4": LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]),
    "lora of a rank above k's width": LoraConfig(task_type="CAUSAL_LM", r=24, lora_alpha=24, target_modules=ALL),
    "lora on some layers": LoraConfig(
        task_type="CAUSAL_LM", r=8, lora_alpha=8, target_modules=ALL, layers_to_transform=[0, 2]
    ),
    "lora by a regular expression": LoraConfig(
        task_type="CAUSAL_LM", r=8, lora_alpha=8, target_modules=r".*\.1\.mlp\.(gate|down)_proj"
    ),
    "rslora": LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=8, use_rslora=True, target_modules=ALL),
    "patterns": LoraConfig(
        task_type="CAUSAL_LM",
        r=8,
        lora_alpha=16,
        target_modules=ALL,
        rank_pattern={"q_proj": 16, r"model\.layers\.1\.mlp\.(up|gate)_proj": 4},
        alpha_pattern={"v_proj": 40, "layers.0.self_attn.q_proj": 3},
    ),
    "patterns with rslora": LoraConfig(
        task_type="CAUSAL_LM", r=8, lora_alpha=16, use_rslora=True, target_modules=ALL, rank_pattern={"o_proj": 2}
    ),
    "dora": LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, use_dora=True, target_modules=ALL),
    "dora with patterns on some modules": LoraConfig(
        task_type="CAUSAL_LM",
        r=4,
        lora_alpha=16,
        use_dora=True,
        use_rslora=True,
        target_modules=["k_proj", "down_proj"],
        alpha_pattern={"k_proj": 5},
    ),
    "ia3": IA3Config(
        task_type="CAUSAL_LM", target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]
    ),
    "ia3 on up and down": IA3Config(
        task_type="CAUSAL_LM",
        target_modules=["q_proj", "gate_proj", "up_proj", "down_proj"],
        feedforward_modules=["down_proj"],
    ),
    "ia3 on outputs only": IA3Config(
        task_type="CAUSAL_LM", target_modules=["o_proj", "down_proj"], feedforward_modules=[]
    ),
    "prompt tuning": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=10),
    "p-tuning, mlp": PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=10, encoder_hidden_size=32),
    "p-tuning, lstm": PromptEncoderConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=6,
        encoder_hidden_size=16,
        encoder_reparameterization_type="LSTM",
    ),
}
QWEN_KINDS = {
    name: LLAMA_KINDS[name]
    for name in ("lora", "patterns", "ia3", "ia3 on up and down", "prompt tuning", "p-tuning, mlp")
} | {
    "dora on layers without a bias": LoraConfig(
        task_type="CAUSAL_LM", r=8, use_dora=True, target_modules=["o_proj", "gate_proj", "up_proj", "down_proj"]
    )
}


def check(base: TestBase, config: PeftConfig, tmp_path: Path, out: Path) -> None:
    with torch.no_grad():
        plain = base.model(input_ids=ids()).logits
    expected, directory = save(base, tune(base, config), tmp_path / "adapter")
    made = convert([find_adapter(directory)], base.engine, out)
    found = logits(base.model, ids(), made, out)
    assert (expected - plain).abs().max() > EFFECT, "the adapter has no effect, so the comparison says nothing"
    assert (found - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize("kind", LLAMA_KINDS)
def test_llama_answers_as_peft_does(kind: str, llama: TestBase, tmp_path: Path, out: Path) -> None:
    check(llama, LLAMA_KINDS[kind], tmp_path, out)


@pytest.mark.parametrize("kind", QWEN_KINDS)
def test_qwen_with_biased_attention_answers_as_peft_does(kind: str, qwen: TestBase, tmp_path: Path, out: Path) -> None:
    check(qwen, QWEN_KINDS[kind], tmp_path, out)


def test_lora_and_virtual_tokens_together(llama: TestBase, tmp_path: Path, out: Path) -> None:
    _, lora = save(llama, tune(llama, LLAMA_KINDS["lora"]), tmp_path / "lora")
    _, table = save(llama, tune(llama, LLAMA_KINDS["prompt tuning"]), tmp_path / "table")
    made = convert([find_adapter(table), find_adapter(lora)], llama.engine, out)
    found = logits(llama.model, ids(), made, out)

    tuned = tune(llama, LLAMA_KINDS["lora"])
    embeddings = load_file(table / "adapter_model.safetensors")["prompt_embeddings"]
    with torch.no_grad():
        text = llama.model.get_input_embeddings()(ids())
        both = torch.cat([embeddings.expand(2, -1, -1), text], dim=1)
        expected = tuned(inputs_embeds=both).logits[:, 10:]
    tuned.unload()
    assert (found - expected).abs().max() < TOLERANCE


def test_dora_reads_a_sharded_base(tmp_path: Path, out: Path) -> None:
    base = make_base("llama", tmp_path / "sharded", sharded=True)
    assert not (base.directory / "model.safetensors").exists()
    check(base, LLAMA_KINDS["dora"], tmp_path, out)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_adapters_and_bases_in_half_precision(dtype: torch.dtype, llama: TestBase, tmp_path: Path, out: Path) -> None:
    """Stored in half precision, computed here in float32: equal to peft with the same values in float32."""
    _, directory = save(llama, tune(llama, LLAMA_KINDS["dora"]), tmp_path / "adapter")
    weights = directory / "adapter_model.safetensors"
    half = {name: tensor.to(dtype) for name, tensor in load_file(weights).items()}
    save_file(half, weights)
    made = convert([find_adapter(directory)], llama.engine, out)
    lines, config = read_lora(made, out)

    base = load_file(llama.directory / "model.safetensors")
    for line, (module, layer, rank, dora) in zip(lines, config, strict=True):
        name = {4: "self_attn.o_proj", 6: "mlp.down_proj"}.get(int(module))
        if name is None:
            continue
        prefix = f"base_model.model.model.layers.{layer}.{name}"
        a, b = half[f"{prefix}.lora_A.weight"].float(), 2 * half[f"{prefix}.lora_B.weight"].float()
        m = half[f"{prefix}.lora_magnitude_vector"].float()
        m = m / (base[f"model.layers.{layer}.{name}.weight"] + b @ a).norm(dim=1)
        expected = torch.cat([a.ravel(), b.ravel(), m])
        assert dora == 1
        assert rank == 8
        assert torch.allclose(torch.from_numpy(line[: expected.numel()]), expected, rtol=1e-6, atol=1e-7)


def test_rows_stand_in_the_engines_order_with_zeros_for_untouched_attention(
    llama: TestBase, tmp_path: Path, out: Path
) -> None:
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=4, target_modules=["v_proj", "down_proj"])
    _, directory = save(llama, tune(llama, config), tmp_path / "adapter")
    made = convert([find_adapter(directory)], llama.engine, out)
    lines, entries = read_lora(made, out)
    assert entries.tolist() == [[module, layer, 8, 0] for layer in range(LAYERS) for module in (1, 2, 3, 6)]
    assert not lines[0].any()
    assert not lines[1].any()
    assert lines[2].any()


def with_lora(engine: EngineManifest, **changes: object) -> EngineManifest:
    return msgspec.structs.replace(engine, lora=msgspec.structs.replace(engine.lora, **changes))


def test_an_engine_of_three_columns_gets_three(llama: TestBase, tmp_path: Path, out: Path) -> None:
    expected, directory = save(llama, tune(llama, LLAMA_KINDS["lora"]), tmp_path / "adapter")
    made = convert([find_adapter(directory)], with_lora(llama.engine, config_columns=3, dora=False), out)
    _, entries = read_lora(made, out)
    assert entries.shape == (7 * LAYERS, 3)
    assert (logits(llama.model, ids(), made, out) - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_half_precision_engine_gets_each_value_rounded_once(
    dtype: str, llama: TestBase, tmp_path: Path, out: Path
) -> None:
    _, directory = save(llama, tune(llama, LLAMA_KINDS["lora"]), tmp_path / "adapter")
    made = convert([find_adapter(directory)], with_lora(llama.engine, dtype=Dtype(dtype)), out)
    lines, _ = read_lora(made, out)
    tensors = load_file(directory / "adapter_model.safetensors")
    a = tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"]
    b = tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"] * 2
    expected = torch.cat([a.ravel(), b.ravel()]).to(getattr(torch, dtype)).float()
    assert torch.equal(torch.from_numpy(lines[0][: expected.numel()]), expected)


def test_a_p_tuning_encoder_that_was_saved_raw_is_run_once(llama: TestBase, tmp_path: Path, out: Path) -> None:
    tuned = tune(llama, LLAMA_KINDS["p-tuning, mlp"])
    _, directory = save(llama, tuned, tmp_path / "adapter")
    ready = load_file(directory / "adapter_model.safetensors")["prompt_embeddings"]
    raw = {f"prompt_encoder.{name}": value for name, value in tuned.prompt_encoder.state_dict().items()}
    save_file(raw, directory / "adapter_model.safetensors")
    made = convert([find_adapter(directory)], llama.engine, out)
    assert torch.allclose(torch.from_numpy(read_table(made, out)), ready, atol=1e-5)


def test_pissa_that_was_saved_as_peft_advises(tmp_path: Path, out: Path) -> None:
    """peft turns it into a plain LoRA of twice the rank on the untouched base."""
    config = LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=4, target_modules=["q_proj", "up_proj"], init_lora_weights="pissa"
    )
    base = make_base("llama", tmp_path / "pissa-base")
    untouched = make_base("llama", tmp_path / "pissa-base")
    tuned = tune(base, config)
    fresh = tune_nothing(make_base("llama", tmp_path / "pissa-base"), config)
    fresh.peft_config["default"].init_lora_weights = True
    fresh.save_pretrained(tmp_path / "initial")
    with torch.no_grad():
        expected = tuned(input_ids=ids()).logits
    tuned.save_pretrained(tmp_path / "adapter", path_initial_model_for_weight_conversion=str(tmp_path / "initial"))
    made = convert([find_adapter(tmp_path / "adapter")], base.engine, out)
    assert made.reports[0].ranks == (8, 8)
    assert (logits(untouched.model, ids(), made, out) - expected).abs().max() < TOLERANCE


def tune_nothing(base: TestBase, config: PeftConfig) -> torch.nn.Module:
    from peft import get_peft_model

    torch.manual_seed(11)
    return get_peft_model(base.model, config)


def test_the_report_says_what_was_done(llama: TestBase, tmp_path: Path, out: Path) -> None:
    _, directory = save(llama, tune(llama, LLAMA_KINDS["patterns"]), tmp_path / "adapter")
    made = convert([find_adapter(directory)], llama.engine, out)
    report = made.reports[0]
    assert report.peft_type == "LORA"
    assert report.modules == ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj", "up_proj")
    assert report.ranks == (4, 16)
    assert report.layers == LAYERS
    assert report.notes == ()


def test_files_are_found_by_name_wherever_they_lie(llama: TestBase, tmp_path: Path, out: Path) -> None:
    _, directory = save(llama, tune(llama, LLAMA_KINDS["lora"]), tmp_path / "adapter")
    renamed = tmp_path / "blob"
    (directory / "adapter_model.safetensors").rename(renamed)
    made = convert([AdapterFiles(directory / "adapter_config.json", renamed)], llama.engine, out)
    assert made.lora is not None
