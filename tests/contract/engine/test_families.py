"""
Every architecture that the engine computes gives transformers' own logits, and what it does not compute is refused.

Models are random and small; what matters is each family's own detail: biases (Qwen2), norms per head (Qwen3), tied and
untied embeddings, rotary scaling, sharded checkpoints, half precision.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tailor_engine.checkpoint import read_config
from tailor_engine.errors import EngineLoadError
from tailor_engine.request import EngineRequest, Wants
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from build.reference_engine import EngineSettings
from gateway.domain.manifest import Dtype
from tests.contract.engine.harness import Harness

SIZES = {
    "vocab_size": 199,
    "hidden_size": 48,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    # Large enough for logits of a real model's size; with transformers' 0.02 every difference would look small.
    "initializer_range": 0.15,
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
MODELS: dict[str, tuple[type, PretrainedConfig]] = {
    "Llama, tied": (LlamaForCausalLM, LlamaConfig(**SIZES, tie_word_embeddings=True)),
    "Llama, untied, biases everywhere": (
        LlamaForCausalLM,
        LlamaConfig(**SIZES, tie_word_embeddings=False, attention_bias=True, mlp_bias=True),
    ),
    "Llama 3.1's rotary scaling": (LlamaForCausalLM, LlamaConfig(**SIZES, rope_parameters=LLAMA3)),
    "Llama, linear rotary scaling": (
        LlamaForCausalLM,
        LlamaConfig(**SIZES, rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}),
    ),
    "Llama, no grouped heads": (LlamaForCausalLM, LlamaConfig(**{**SIZES, "num_key_value_heads": 6})),
    "Qwen2": (Qwen2ForCausalLM, Qwen2Config(**SIZES, tie_word_embeddings=False)),
    "Qwen3, head size of its own": (Qwen3ForCausalLM, Qwen3Config(**SIZES, head_dim=16)),
}
PROMPT = tuple(int(value) for value in torch.randint(0, 199, (75,), generator=torch.Generator().manual_seed(5)))


def _save(directory: Path, name: str, *, shard: str = "5GB") -> Any:
    kind, config = MODELS[name]
    torch.manual_seed(11)
    model = kind(config).eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:  # norms and biases start as ones and zeros, which would hide a missing one
            torch.nn.init.normal_(parameter, mean=float(parameter.detach().mean()), std=0.3)
    model.save_pretrained(directory, max_shard_size=shard)
    return model


def _engine(checkpoint: Path, scratch: Path, **settings: object) -> Harness:
    chosen = EngineSettings(max_total_tokens=256, kv_cache_tokens=1024, **settings)  # type: ignore[arg-type]
    return Harness(checkpoint, scratch, {"max_num_tokens": "32"}, chosen)


def _logits(harness: Harness) -> tuple[list[int], torch.Tensor]:
    wants = Wants(context_logits=True, generation_logits=True)
    listener = harness.answer(EngineRequest(PROMPT, 12, exclude_input_in_output=True, wants=wants))
    prompt = listener.outputs[0].context_logits
    assert prompt is not None
    return listener.tokens, torch.cat([prompt[:-1], listener.generation_logits()])


@torch.inference_mode()
def _expected(model: Any, tokens: list[int]) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=torch.tensor([[*PROMPT, *tokens[:-1]]])).logits[0].float()
    return logits


@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_those_of_transformers(name: str, tmp_path: Path) -> None:
    model = _save(tmp_path / "model", name)
    tokens, logits = _logits(_engine(tmp_path / "model", tmp_path / "engine"))
    expected = _expected(model, tokens)
    assert expected.abs().max() > 1.0
    assert (logits - expected).abs().max() < 1e-4
    assert tokens == expected[-len(tokens) :].argmax(-1).tolist()


def test_a_sharded_checkpoint_is_read(tmp_path: Path) -> None:
    model = _save(tmp_path / "model", "Qwen2", shard="60KB")
    assert len(list((tmp_path / "model").glob("*.safetensors"))) > 2
    tokens, logits = _logits(_engine(tmp_path / "model", tmp_path / "engine"))
    assert (logits - _expected(model, tokens)).abs().max() < 1e-4


def test_theta_is_read_where_older_configurations_keep_it(tmp_path: Path) -> None:
    _save(tmp_path / "model", "Llama, tied")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    del config["rope_parameters"]
    path.write_text(json.dumps({**config, "rope_theta": 77777.0}))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    tokens, logits = _logits(_engine(tmp_path / "model", tmp_path / "engine"))
    assert read_config(tmp_path / "model").rotary.theta == 77777.0
    assert (logits - _expected(model, tokens)).abs().max() < 1e-4


@pytest.mark.parametrize(("dtype", "tolerance"), [(Dtype.FLOAT16, 0.05), (Dtype.BFLOAT16, 0.4)], ids=["fp16", "bf16"])
def test_half_precision_engines_stay_close_to_full(dtype: Dtype, tolerance: float, tmp_path: Path) -> None:
    model = _save(tmp_path / "model", "Qwen2")
    tokens, logits = _logits(_engine(tmp_path / "model", tmp_path / "engine", dtype=dtype))
    difference = (logits - _expected(model, tokens)).abs().max()
    assert 0.0 < difference < tolerance


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"architectures": ["MistralForCausalLM"]}, "is a MistralForCausalLM; the reference engine computes"),
        ({"hidden_act": "gelu"}, "uses the activation gelu"),
        ({"use_sliding_window": True, "sliding_window": 16}, "sliding attention window"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding attention window"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "rope type yarn is not computed"),
        ({"partial_rotary_factor": 0.5}, "partial rotary"),
    ],
)
def test_what_is_not_computed_is_refused(change: dict[str, object], sentence: str, tmp_path: Path) -> None:
    _save(tmp_path / "model", "Llama, tied")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(EngineLoadError, match=sentence):
        read_config(tmp_path / "model")
