"""
A Hugging Face directory of the Llama and Qwen families, as the decoder wants it.

Decides which architectures are understood and how their tensors are fused (q, k, v in one matrix; gate and up in one:
decoding is bound by reading weights, and fewer, larger matrices are read faster). Does not compute anything.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .errors import EngineLoadError
from .matrix import Matrix
from .rotary import RotaryConfig, read_rotary

ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}


@dataclass(frozen=True)
class ModelConfig:
    """Sizes are elements. `qk_norm`: queries and keys are normalised per head (Qwen3)."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    max_positions: int
    norm_eps: float
    tied_embeddings: bool
    qk_norm: bool
    rotary: RotaryConfig

    @property
    def q_size(self) -> int:
        return self.num_heads * self.head_size

    @property
    def kv_size(self) -> int:
        return self.num_kv_heads * self.head_size


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """
    Matrices are out x in, biases included.

    qkv          q + 2 kv x hidden
    dense        hidden x q
    gate_up      2 intermediate x hidden
    down         hidden x intermediate
    input_norm   [hidden]               post_norm [hidden]
    qk_norm      [heads + kv heads, head size] or None: one weight per head, queries first
    """

    input_norm: torch.Tensor
    qkv: Matrix
    qk_norm: torch.Tensor | None
    dense: Matrix
    post_norm: torch.Tensor
    gate_up: Matrix
    down: Matrix


@dataclass(frozen=True, eq=False)
class ModelWeights:
    """embedding is [vocabulary, hidden], head vocabulary x hidden: packed, so held apart even when they are tied."""

    embedding: torch.Tensor
    layers: tuple[LayerWeights, ...]
    norm: torch.Tensor
    head: Matrix


def read_config(checkpoint: Path) -> ModelConfig:
    """
    Read `config.json`.

    Raises:
        EngineLoadError: missing, or it asks for something this engine does not compute.
    """
    path = checkpoint / "config.json"
    try:
        raw = json.loads(path.read_text())
    except OSError as error:
        raise EngineLoadError(
            f"checkpoint {checkpoint} has no readable config.json ({error.strerror}); prepare the base model first"
        ) from error
    architecture = (raw.get("architectures") or ["none"])[0]
    if architecture not in ARCHITECTURES:
        raise EngineLoadError(
            f"checkpoint {checkpoint} is a {architecture}; the reference engine computes {', '.join(ARCHITECTURES)}"
        )
    if raw.get("hidden_act", "silu") != "silu":
        raise EngineLoadError(f"checkpoint {checkpoint} uses the activation {raw['hidden_act']}; only silu is computed")
    if _has_sliding_window(raw):
        raise EngineLoadError(f"checkpoint {checkpoint} uses a sliding attention window, which is not computed")
    head_size = raw.get("head_dim") or raw["hidden_size"] // raw["num_attention_heads"]
    return ModelConfig(
        architecture=architecture,
        vocab_size=raw["vocab_size"],
        hidden_size=raw["hidden_size"],
        intermediate_size=raw["intermediate_size"],
        num_layers=raw["num_hidden_layers"],
        num_heads=raw["num_attention_heads"],
        num_kv_heads=raw.get("num_key_value_heads") or raw["num_attention_heads"],
        head_size=head_size,
        max_positions=raw["max_position_embeddings"],
        norm_eps=raw["rms_norm_eps"],
        tied_embeddings=bool(raw.get("tie_word_embeddings", False)),
        qk_norm=ARCHITECTURES[architecture] == "qwen3",
        rotary=read_rotary(raw, head_size),
    )


def _has_sliding_window(raw: Mapping[str, object]) -> bool:
    layer_types = raw.get("layer_types")
    if isinstance(layer_types, list):
        return "sliding_attention" in layer_types
    return bool(raw.get("use_sliding_window")) and raw.get("sliding_window") is not None


def load_weights(checkpoint: Path, config: ModelConfig, dtype: torch.dtype) -> ModelWeights:
    """
    Load and fuse the weights, one layer at a time, so that no more than a layer is held twice.

    Raises:
        EngineLoadError: a tensor or file is missing, or has another shape than config.json says.
    """
    reader = _Reader(checkpoint, dtype)
    hidden = config.hidden_size
    embedding = reader.tensor("model.embed_tokens.weight", (config.vocab_size, hidden))
    head = embedding if config.tied_embeddings else reader.tensor("lm_head.weight", (config.vocab_size, hidden))
    layers = tuple(_load_layer(reader, f"model.layers.{index}.", config) for index in range(config.num_layers))
    return ModelWeights(embedding, layers, reader.tensor("model.norm.weight", (hidden,)), Matrix(head))


def _load_layer(reader: "_Reader", prefix: str, config: ModelConfig) -> LayerWeights:
    hidden, inner = config.hidden_size, config.intermediate_size
    attention = {"q_proj": config.q_size, "k_proj": config.kv_size, "v_proj": config.kv_size}
    mlp = {"gate_proj": inner, "up_proj": inner}
    qk_norm = None
    if config.qk_norm:
        q_norm = reader.tensor(f"{prefix}self_attn.q_norm.weight", (config.head_size,))
        k_norm = reader.tensor(f"{prefix}self_attn.k_norm.weight", (config.head_size,))
        qk_norm = torch.cat([q_norm.expand(config.num_heads, -1), k_norm.expand(config.num_kv_heads, -1)])
    return LayerWeights(
        input_norm=reader.tensor(f"{prefix}input_layernorm.weight", (hidden,)),
        qkv=reader.matrix(f"{prefix}self_attn.", attention, hidden),
        qk_norm=qk_norm,
        dense=reader.matrix(f"{prefix}self_attn.", {"o_proj": hidden}, config.q_size),
        post_norm=reader.tensor(f"{prefix}post_attention_layernorm.weight", (hidden,)),
        gate_up=reader.matrix(f"{prefix}mlp.", mlp, hidden),
        down=reader.matrix(f"{prefix}mlp.", {"down_proj": hidden}, inner),
    )


class _Reader:
    """Finds tensors by name in one safetensors file or in a sharded set."""

    def __init__(self, checkpoint: Path, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._checkpoint = checkpoint
        index = checkpoint / "model.safetensors.index.json"
        try:
            if index.exists():
                shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            else:
                shards = ["model.safetensors"]
            self._files: list[Any] = [safe_open(str(checkpoint / shard), framework="pt") for shard in shards]
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise EngineLoadError(f"weights of checkpoint {checkpoint} cannot be read: {error}") from error
        self._places = {name: file for file in self._files for name in file.keys()}  # noqa: SIM118

    def tensor_or_none(self, name: str, shape: tuple[int, ...]) -> torch.Tensor | None:
        if name not in self._places:
            return None
        tensor: torch.Tensor = self._places[name].get_tensor(name)
        if tuple(tensor.shape) != shape:
            raise EngineLoadError(
                f"{name} of checkpoint {self._checkpoint} has shape {tuple(tensor.shape)}; config.json says {shape}"
            )
        return tensor.to(self._dtype)

    def tensor(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        tensor = self.tensor_or_none(name, shape)
        if tensor is None:
            raise EngineLoadError(f"checkpoint {self._checkpoint} lacks the tensor {name}")
        return tensor

    def matrix(self, prefix: str, outputs: Mapping[str, int], inputs: int) -> Matrix:
        """The projections `outputs` names, with their sizes, as one matrix; missing biases are zero, or all absent."""
        weight = torch.cat([self.tensor(f"{prefix}{name}.weight", (size, inputs)) for name, size in outputs.items()])
        biases = {name: self.tensor_or_none(f"{prefix}{name}.bias", (size,)) for name, size in outputs.items()}
        if all(bias is None for bias in biases.values()):
            return Matrix(weight)
        filled = [
            torch.zeros(size, dtype=self._dtype) if (bias := biases[name]) is None else bias
            for name, size in outputs.items()
        ]
        return Matrix(weight, torch.cat(filled))
