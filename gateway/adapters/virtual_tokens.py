"""
Prompt tuning and p-tuning as one table of embeddings.

Decides how a table is found: peft saves it ready made as `prompt_embeddings`; a p-tuning encoder that was saved raw
is run once here, because the same rows come out for every request. Does not know where in a prompt the rows will
stand.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from gateway.adapters.lora import shape_refused
from gateway.adapters.peft_config import PeftConfig
from gateway.adapters.refusal import AdapterRefused, RefusalCode
from gateway.adapters.rows import MAX_MAGNITUDE, MAX_MESSAGE_BYTES, element_type
from gateway.adapters.safetensors_file import FloatArray, SafetensorsFile
from gateway.adapters.values import finite
from gateway.domain.manifest import EngineManifest
from gateway.domain.version import DerivedFile, DerivedPrompt

_ENCODER = re.compile(
    r"(?:prompt_encoder\.[A-Za-z0-9_]+\.)?(?P<part>embedding\.weight|mlp_head\.[024]\.(?:weight|bias))"
)
_MLP_PARTS = ("embedding.weight", *(f"mlp_head.{index}.{kind}" for index in (0, 2, 4) for kind in ("weight", "bias")))


def write_table(config: PeftConfig, file: SafetensorsFile, engine: EngineManifest, folder: Path) -> DerivedPrompt:
    """
    Write `prompt_table.bin`: [virtual tokens, hidden] of the engine's element type.

    Raises:
        AdapterRefused: the engine takes no table or a smaller one, a tensor is unknown or misshapen, or a value is
        not fit.
    """
    ability = engine.prompt_table
    if ability is None:
        raise AdapterRefused(
            RefusalCode.PROMPT_TABLE_UNSUPPORTED,
            f"The adapter is virtual tokens, and the engine of {engine.base.name} was built without a prompt table.",
            "Build the engine with max_prompt_embedding_table_size above 0, or train LoRA.",
            {"engine": engine.base.name},
        )
    if config.virtual_tokens > ability.max_rows:
        raise AdapterRefused(
            RefusalCode.TOO_MANY_VIRTUAL_TOKENS,
            f"The adapter has {config.virtual_tokens} virtual tokens; the engine of {engine.base.name} takes "
            f"{ability.max_rows} a request.",
            f"Train with num_virtual_tokens={ability.max_rows} or fewer, or build the engine with a larger table.",
            {"virtual_tokens": str(config.virtual_tokens), "limit": str(ability.max_rows)},
        )
    table = _table(config, file, engine)
    dtype = element_type(ability.dtype)
    _check_values(table, dtype)
    if not np.any(table):
        raise AdapterRefused(
            RefusalCode.NO_EFFECT,
            "Every virtual token is zero.",
            "Hand in the adapter as it was after training.",
        )
    content = table.astype(dtype).tobytes()
    if len(content) > MAX_MESSAGE_BYTES:
        raise AdapterRefused(
            RefusalCode.ADAPTER_TOO_LARGE,
            f"The table needs {len(content):,} bytes, more than one message to the engine can carry.",
            "Train with fewer virtual tokens.",
            {"bytes": str(len(content)), "limit_bytes": str(MAX_MESSAGE_BYTES)},
        )
    (folder / "prompt_table.bin").write_bytes(content)
    return DerivedPrompt(
        rows=table.shape[0],
        hidden=table.shape[1],
        dtype=ability.dtype,
        table=DerivedFile(name="prompt_table.bin", bytes=len(content), sha256=hashlib.sha256(content).hexdigest()),
    )


def _table(config: PeftConfig, file: SafetensorsFile, engine: EngineManifest) -> FloatArray:
    expected = (config.virtual_tokens, engine.hidden_size)
    if "prompt_embeddings" in file:
        for name in file:
            if name != "prompt_embeddings":
                raise _unknown(name)
        found = file.tensors["prompt_embeddings"].shape
        if found != expected:
            raise shape_refused("prompt_embeddings", found, expected, engine)
        return finite(file.load("prompt_embeddings"), "prompt_embeddings")
    return _encoded(config, file, expected, engine)


def _encoded(
    config: PeftConfig, file: SafetensorsFile, expected: tuple[int, int], engine: EngineManifest
) -> FloatArray:
    parts = {match["part"]: name for name in file if (match := _ENCODER.fullmatch(name))}
    for name in file:
        if "lstm" in name:
            raise AdapterRefused(
                RefusalCode.OPTION_UNSUPPORTED,
                f"The adapter holds the weights of an LSTM encoder ({name}) instead of its finished table.",
                "Load it in peft and call save_pretrained, which stores the table as prompt_embeddings.",
                {"tensor": name, "option": "encoder_reparameterization_type"},
            )
        if name not in parts.values():
            raise _unknown(name)
    wanted = _MLP_PARTS if config.peft_type == "P_TUNING" else _MLP_PARTS[:1]
    for part in wanted:
        if part not in parts:
            raise AdapterRefused(
                RefusalCode.TENSOR_MISSING,
                f"The adapter holds neither prompt_embeddings nor {part}.",
                "Save it with peft's save_pretrained and hand in that directory unchanged.",
                {"tensor": part},
            )
    for part in sorted(set(parts) - set(wanted)):
        raise _unknown(parts[part])
    loaded = {part: finite(file.load(name), name) for part, name in parts.items()}
    found = loaded["embedding.weight"].shape
    if found != expected:
        raise shape_refused(parts["embedding.weight"], found, expected, engine)
    return loaded["embedding.weight"] if len(wanted) == 1 else _mlp(loaded, parts, expected, engine)


def _mlp(
    loaded: dict[str, FloatArray], parts: dict[str, str], expected: tuple[int, int], engine: EngineManifest
) -> FloatArray:
    """peft's MLP encoder: three linear layers with ReLU between them; there is no dropout at inference."""
    inner = loaded["mlp_head.0.weight"].shape[0]
    shapes = {0: (inner, expected[1]), 2: (inner, inner), 4: (expected[1], inner)}
    for index, shape in shapes.items():
        for part, wanted in ((f"mlp_head.{index}.weight", shape), (f"mlp_head.{index}.bias", shape[:1])):
            if loaded[part].shape != wanted:
                raise shape_refused(parts[part], loaded[part].shape, wanted, engine)
    values = loaded["embedding.weight"]
    for index in shapes:
        values = values @ loaded[f"mlp_head.{index}.weight"].T + loaded[f"mlp_head.{index}.bias"]
        values = values if index == 4 else np.maximum(values, 0)
    return values


def _check_values(table: FloatArray, dtype: np.dtype[Any]) -> None:
    largest = float(np.max(np.abs(table)))
    limit = min(MAX_MAGNITUDE, float(ml_dtypes.finfo(dtype).max))
    if not largest <= limit:
        raise AdapterRefused(
            RefusalCode.VALUE_OUT_OF_RANGE,
            f"A value of {largest:.3g} in the table is beyond {limit:.6g}, the most {dtype.name} engines are sent.",
            "Its training has probably diverged; hand in an earlier checkpoint.",
            {"value": f"{largest:.6g}", "limit": f"{limit:.6g}"},
        )


def _unknown(name: str) -> AdapterRefused:
    return AdapterRefused(
        RefusalCode.TENSOR_UNKNOWN,
        f"The adapter holds a tensor that has no known use: {name}.",
        "Save it with peft's save_pretrained and hand in that directory unchanged.",
        {"tensor": name},
    )
