"""
Random small bases, and adapters trained by nobody.
"""

import copy
import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from gateway.domain.manifest import EngineManifest
from tests.unit.adapters.engines import HEADS, HIDDEN, INNER, KV_HEADS, LAYERS, VOCABULARY, manifest


@dataclass(frozen=True)
class TestBase:
    """A base in memory and on disk, and its engine's manifest."""

    __test__ = False

    model: PreTrainedModel
    directory: Path
    engine: EngineManifest


def make_base(architecture: str, directory: Path, *, sharded: bool = False) -> TestBase:
    """A random base with weights large enough that every layer matters."""
    torch.manual_seed(7)
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": 128,
        "initializer_range": 0.15,
    }
    model = (
        LlamaForCausalLM(LlamaConfig(**sizes)) if architecture == "llama" else Qwen2ForCausalLM(Qwen2Config(**sizes))
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.3)
    model.eval()
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory, max_shard_size="40KB" if sharded else "1GB")
    model.config._name_or_path = model.name_or_path = str(directory)
    single = directory / "model.safetensors"
    fingerprint = hashlib.sha256(single.read_bytes()).hexdigest() if single.exists() else "0" * 64
    return TestBase(model, directory, manifest(directory, type(model).__name__, f"sha256:{fingerprint}"))


def ids() -> torch.Tensor:
    """Two prompts of 20 tokens."""
    return torch.randint(0, VOCABULARY, (2, 20), generator=torch.Generator().manual_seed(3))


def tune(base: TestBase, config: PeftConfig, *, seed: int = 11) -> PeftModel:
    """An adapter whose every trained value has been shaken, so that it changes the answer."""
    torch.manual_seed(seed)
    tuned = get_peft_model(base.model, copy.deepcopy(config))
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if not parameter.requires_grad:
                continue
            if "magnitude" in name or "ia3_l" in name:
                parameter.mul_(1 + 0.4 * torch.randn_like(parameter))
            else:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return tuned.eval()


def save(base: TestBase, tuned: PeftModel, directory: Path) -> tuple[torch.Tensor, Path]:
    """peft's own logits with the adapter on, and the directory it was saved to; the base is given back untouched."""
    with torch.no_grad():
        expected = tuned(input_ids=ids()).logits[:, -20:]
    tuned.save_pretrained(directory)
    if hasattr(tuned.base_model, "unload"):
        tuned.unload()
    return expected, directory
