"""
A PEFT directory in the rows that TensorRT-LLM's LoRA takes, by the plainest formula for each kind.

Written apart from gateway/adapters on purpose: the engine is judged here without the converter that serving uses.
    LoRA  A, B * alpha / r
    DoRA  the same, and m = magnitude / |W + s B A| per output row
    IA3   m = l on the module; an input scale of down_proj is an output scale of up_proj
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from tailor_engine.request import LoraInput

MODULE_IDS = {"q_proj": 1, "k_proj": 2, "v_proj": 3, "o_proj": 4, "gate_proj": 5, "down_proj": 6, "up_proj": 7}
IA3_RANK = 8


@dataclass(frozen=True)
class _Row:
    module: int
    layer: int
    rank: int
    dora: int
    values: torch.Tensor


def lora_input(directory: Path, task_id: int, base: dict[str, torch.Tensor]) -> LoraInput:
    """The tensors that a first request with this adapter carries. base: the base model's state dict."""
    config = json.loads((directory / "adapter_config.json").read_text())
    tensors = {name: tensor.float() for name, tensor in load_file(directory / "adapter_model.safetensors").items()}
    rows = _ia3_rows(tensors, base) if config["peft_type"] == "IA3" else _lora_rows(tensors, config, base)
    rows.sort(key=lambda row: (row.layer, row.module))
    width = max(row.values.numel() for row in rows)
    weights = torch.stack([torch.nn.functional.pad(row.values, (0, width - row.values.numel())) for row in rows])
    keys = torch.tensor([[row.module, row.layer, row.rank, row.dora] for row in rows], dtype=torch.int32)
    return LoraInput(task_id, weights, keys)


def prompt_rows(directory: Path) -> torch.Tensor:
    """The virtual tokens of a prompt-tuning or p-tuning directory [tokens, hidden]."""
    rows: torch.Tensor = load_file(directory / "adapter_model.safetensors")["prompt_embeddings"]
    return rows.float()


def _parts(name: str) -> tuple[int, str, str]:
    """layer, projection and base weight of a PEFT tensor's name."""
    path = name.removeprefix("base_model.model.").split(".")
    layer, block, projection = int(path[2]), path[3], path[4]
    return layer, projection, f"model.layers.{layer}.{block}.{projection}.weight"


def _lora_rows(
    tensors: dict[str, torch.Tensor], config: dict[str, object], base: dict[str, torch.Tensor]
) -> list[_Row]:
    rows = []
    for name, a in tensors.items():
        if not name.endswith("lora_A.weight"):
            continue
        layer, projection, weight = _parts(name)
        stem = name.removesuffix("lora_A.weight")
        rank = a.shape[0]
        root = rank**0.5 if config["use_rslora"] else rank
        b = tensors[stem + "lora_B.weight"] * (float(str(config["lora_alpha"])) / root)
        values = [a.flatten(), b.flatten()]
        magnitude = tensors.get(stem + "lora_magnitude_vector")
        if magnitude is not None:
            values.append(magnitude / (base[weight] + b @ a).norm(dim=1))
        rows.append(_Row(MODULE_IDS[projection], layer, rank, int(magnitude is not None), torch.cat(values)))
    return rows


def _ia3_rows(tensors: dict[str, torch.Tensor], base: dict[str, torch.Tensor]) -> list[_Row]:
    rows = []
    for name, scale in tensors.items():
        layer, projection, weight = _parts(name)
        if projection == "down_proj":
            projection = "up_proj"
            weight = weight.replace("down_proj", "up_proj")
        outputs, inputs = base[weight].shape
        zeros = torch.zeros(IA3_RANK * (inputs + outputs))
        rows.append(_Row(MODULE_IDS[projection], layer, IA3_RANK, 1, torch.cat([zeros, scale.flatten()])))
    return rows
