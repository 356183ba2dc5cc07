"""
Adapter directories written by hand, without peft and without a base, so that one thing at a time can be wrong.
"""

import json
import struct
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors.numpy import save_file

from gateway.adapters.modules import BY_LEAF, shape_of
from gateway.domain.manifest import EngineManifest
from tests.unit.adapters.engines import HIDDEN, LAYERS, manifest

PREFIX = "base_model.model.model.layers"


def engine(**changes: Any) -> EngineManifest:
    """An engine of the small base without a checkpoint; `lora` and `prompt_table` may be changed field by field."""
    made = manifest(Path("/nowhere/small-llama"), "LlamaForCausalLM", "sha256:" + "0" * 64)
    for part in ("lora", "prompt_table"):
        if isinstance(changes.get(part), dict):
            changes[part] = msgspec.structs.replace(getattr(made, part), **changes[part])
    return msgspec.structs.replace(made, **changes)


def lora_config(**changes: Any) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "someone/small-llama",
        "r": 8,
        "lora_alpha": 16,
        "target_modules": ["q_proj", "down_proj"],
        "bias": "none",
    } | changes


def lora_tensors(rank: int = 8, leaves: tuple[str, ...] = ("q_proj", "down_proj")) -> dict[str, np.ndarray]:
    made = engine()
    random = np.random.default_rng(5)
    tensors = {}
    for layer in range(LAYERS):
        for leaf in leaves:
            module = BY_LEAF[leaf]
            out, width = shape_of(module, made)
            tensors[f"{PREFIX}.{layer}.{module.path}.lora_A.weight"] = random.normal(size=(rank, width)).astype("f4")
            tensors[f"{PREFIX}.{layer}.{module.path}.lora_B.weight"] = random.normal(size=(out, rank)).astype("f4")
    return tensors


def prompt_config(**changes: Any) -> dict[str, Any]:
    return {
        "peft_type": "PROMPT_TUNING",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "small-llama",
        "num_virtual_tokens": 6,
        "token_dim": HIDDEN,
        "num_transformer_submodules": 1,
    } | changes


def prompt_tensors(rows: int = 6, hidden: int = HIDDEN) -> dict[str, np.ndarray]:
    return {"prompt_embeddings": np.random.default_rng(6).normal(size=(rows, hidden)).astype("f4")}


def ia3_config(**changes: Any) -> dict[str, Any]:
    return {
        "peft_type": "IA3",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "small-llama",
        "target_modules": ["k_proj", "down_proj"],
        "feedforward_modules": ["down_proj"],
    } | changes


def ia3_tensors() -> dict[str, np.ndarray]:
    made = engine()
    tensors = {}
    for layer in range(LAYERS):
        key, down = BY_LEAF["k_proj"], BY_LEAF["down_proj"]
        tensors[f"{PREFIX}.{layer}.{key.path}.ia3_l"] = np.full((shape_of(key, made)[0], 1), 1.5, "f4")
        tensors[f"{PREFIX}.{layer}.{down.path}.ia3_l"] = np.full((1, shape_of(down, made)[1]), 0.5, "f4")
    return tensors


def write(directory: Path, config: dict[str, Any], tensors: dict[str, np.ndarray]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, directory / "adapter_model.safetensors")
    return directory


def raw_safetensors(header: bytes, data: bytes = b"") -> bytes:
    """A file with any header at all."""
    return struct.pack("<Q", len(header)) + header + data
