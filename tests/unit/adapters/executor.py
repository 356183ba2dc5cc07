"""
The engine's formula in torch on a Hugging Face model: y = m * (W x + b + B A x), and table rows for virtual tokens.

Reads nothing but the files a conversion wrote and the documented layout, so that it shares no code with the converter.
"""

from pathlib import Path

import ml_dtypes
import numpy as np
import torch

from gateway.domain.version import Conversion

LAYERS = {
    1: "self_attn.q_proj",
    2: "self_attn.k_proj",
    3: "self_attn.v_proj",
    4: "self_attn.o_proj",
    5: "mlp.gate_proj",
    6: "mlp.down_proj",
    7: "mlp.up_proj",
}
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def read_lora(made: Conversion, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Weights [rows, width] as float32 and config [rows, columns]."""
    lora = made.lora
    assert lora is not None
    raw = np.fromfile(folder / lora.weights.name, dtype=DTYPES[lora.dtype.value])
    config = np.fromfile(folder / lora.config.name, dtype=np.int32)
    return raw.reshape(lora.rows, lora.width).astype(np.float32), config.reshape(lora.rows, lora.columns)


def read_table(made: Conversion, folder: Path) -> np.ndarray:
    """Rows [virtual tokens, hidden] as float32."""
    prompt = made.prompt
    assert prompt is not None
    raw = np.fromfile(folder / prompt.table.name, dtype=DTYPES[prompt.dtype.value])
    return raw.reshape(prompt.rows, prompt.hidden).astype(np.float32)


def logits(model: torch.nn.Module, ids: torch.Tensor, made: Conversion, folder: Path) -> torch.Tensor:
    """Logits [batch, tokens, vocabulary] with what was converted applied; those of virtual tokens are cut off."""
    hooks = []
    if made.lora is not None:
        weights, config = read_lora(made, folder)
        for line, entry in zip(weights, config, strict=True):
            hooks.append(_tune(model, line, [int(value) for value in entry]))
    try:
        with torch.no_grad():
            embedded = model.get_input_embeddings()(ids)
            virtual = 0
            if made.prompt is not None:
                table = torch.from_numpy(read_table(made, folder))
                virtual = table.shape[0]
                embedded = torch.cat([table.expand(ids.shape[0], -1, -1), embedded], dim=1)
            return model(inputs_embeds=embedded).logits[:, virtual:]
    finally:
        for hook in hooks:
            hook.remove()


def _tune(model: torch.nn.Module, line: np.ndarray, entry: list[int]) -> torch.utils.hooks.RemovableHandle:
    module, layer, rank, *dora = entry
    linear = model.get_submodule(f"model.layers.{layer}.{LAYERS[module]}")
    out, width = linear.weight.shape
    values = torch.from_numpy(line)
    a = values[: rank * width].reshape(rank, width)
    b = values[rank * width : rank * (width + out)].reshape(out, rank)
    m = values[rank * (width + out) :][:out] if dora and dora[0] else torch.ones(out)

    def hook(_module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return m * (output + inputs[0] @ a.T @ b.T)

    return linear.register_forward_hook(hook)
