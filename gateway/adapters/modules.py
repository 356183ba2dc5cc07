"""
The layers an adapter can tune: peft's names, the engine's ids, and each one's shape on a given base.

Decides nothing about values. Shapes come from the engine manifest, never from what an adapter happens to contain: a
rank above a layer's output width would otherwise pass for the width.

Source: TensorRT-LLM, examples/hf_lora_convert.py and cpp/include/tensorrt_llm/runtime/loraModule.h. The comments in the
backend's config.pbtxt have 5 and 7 the other way round; the converter's order is the one that is executed.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

from gateway.adapters.refusal import AdapterRefused, RefusalCode
from gateway.domain.manifest import EngineManifest


@dataclass(frozen=True, slots=True)
class Module:
    """One kind of linear layer: the engine's name and id, and where Hugging Face keeps it inside a block."""

    name: str
    id: int
    path: str

    @property
    def leaf(self) -> str:
        """peft's short name: `q_proj`."""
        return self.path.rpartition(".")[2]


MODULES = (
    Module("attn_q", 1, "self_attn.q_proj"),
    Module("attn_k", 2, "self_attn.k_proj"),
    Module("attn_v", 3, "self_attn.v_proj"),
    Module("attn_dense", 4, "self_attn.o_proj"),
    Module("mlp_h_to_4h", 5, "mlp.gate_proj"),
    Module("mlp_4h_to_h", 6, "mlp.down_proj"),
    Module("mlp_gate", 7, "mlp.up_proj"),
)
BY_PATH = {module.path: module for module in MODULES}
BY_NAME = {module.name: module for module in MODULES}
BY_LEAF = {module.leaf: module for module in MODULES}
ATTENTION_INPUTS = (BY_NAME["attn_q"], BY_NAME["attn_k"], BY_NAME["attn_v"])

# peft puts `base_model.model.` before the base's own name; a base loaded without its head lacks the inner `model.`.
_TENSOR = re.compile(
    r"base_model\.model\.(?:model\.)?layers\.(?P<layer>\d{1,6})\.(?P<path>[A-Za-z0-9_]+\.[A-Za-z0-9_]+)"
    r"\.(?P<part>lora_A|lora_B|lora_magnitude_vector|ia3_l)(?:\.weight)?"
)


class Place(NamedTuple):
    """A layer of the base."""

    layer: int
    module: Module

    @property
    def path(self) -> str:
        """As the base names it."""
        return f"model.layers.{self.layer}.{self.module.path}"


def shape_of(module: Module, engine: EngineManifest) -> tuple[int, int]:
    """(out, in) of a layer's weight."""
    hidden, inner = engine.hidden_size, engine.intermediate_size
    query, key = engine.num_heads * engine.head_size, engine.num_kv_heads * engine.head_size
    return {
        "attn_q": (query, hidden),
        "attn_k": (key, hidden),
        "attn_v": (key, hidden),
        "attn_dense": (hidden, query),
        "mlp_h_to_4h": (inner, hidden),
        "mlp_4h_to_h": (hidden, inner),
        "mlp_gate": (inner, hidden),
    }[module.name]


def locate(tensor: str, engine: EngineManifest) -> tuple[Place, str]:
    """
    Where a tensor of an adapter belongs, and which part of it: `lora_A`, `lora_B`, `lora_magnitude_vector`, `ia3_l`.

    Raises:
        AdapterRefused: the name is none that can be served; nothing in a file is ever passed over.
    """
    match = _TENSOR.fullmatch(tensor)
    if match is None:
        raise _unknown(tensor)
    module = BY_PATH.get(match["path"])
    if module is None:
        raise AdapterRefused(
            RefusalCode.MODULE_UNSUPPORTED,
            f"The adapter tunes {match['path']}, which the engine cannot tune per request.",
            f"Train on these layers only: {', '.join(BY_LEAF)}.",
            {"tensor": tensor, "module": match["path"]},
        )
    if engine.lora is not None and module.name not in engine.lora.modules:
        raise AdapterRefused(
            RefusalCode.MODULE_NOT_ENABLED,
            f"The adapter tunes {module.leaf}, but the engine of {engine.base.name} was built without {module.name}.",
            f"Build the engine with {module.name} among its LoRA modules, or train without {module.leaf}.",
            {"tensor": tensor, "module": module.name},
        )
    layer = int(match["layer"])
    if layer >= engine.num_layers:
        raise AdapterRefused(
            RefusalCode.LAYER_OUT_OF_RANGE,
            f"The adapter tunes layer {layer}, but {engine.base.name} has layers 0 to {engine.num_layers - 1}.",
            "It was trained on another base; name the right one with --base.",
            {"tensor": tensor, "layer": str(layer)},
        )
    return Place(layer, module), match["part"]


def _unknown(tensor: str) -> AdapterRefused:
    if "embed" in tensor or "lm_head" in tensor or "modules_to_save" in tensor:
        return AdapterRefused(
            RefusalCode.MODULE_UNSUPPORTED,
            f"The adapter changes the embedding or the output layer ({tensor}).",
            "Train without embed_tokens, lm_head and modules_to_save; those need an engine of their own.",
            {"tensor": tensor},
        )
    return AdapterRefused(
        RefusalCode.TENSOR_UNKNOWN,
        f"The adapter holds a tensor that has no known use: {tensor}.",
        "Save it with peft's save_pretrained and hand in that directory unchanged.",
        {"tensor": tensor},
    )
