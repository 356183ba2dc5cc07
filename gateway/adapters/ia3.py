"""
IA3 as rows that only multiply: A = B = 0 and m the learned scale.

Decides where each scale goes. An output scale is m of its own layer. The engine has no input scale, but the input of
down_proj is act(gate) * up, so scaling it is the same as scaling up_proj's output; no other layer's input can be
moved so. With a bias on the layer this is exact too: peft scales the bias as well.

Does not write anything (gateway/adapters/rows.py does).
"""

import numpy as np

from gateway.adapters.lora import check_coverage, shape_refused, sort_tensors
from gateway.adapters.modules import BY_NAME, Place, shape_of
from gateway.adapters.peft_config import PeftConfig
from gateway.adapters.refusal import AdapterRefused, RefusalCode
from gateway.adapters.rows import MIN_RANK, Factors, Row
from gateway.adapters.safetensors_file import FloatArray, SafetensorsFile
from gateway.adapters.values import finite
from gateway.domain.manifest import EngineManifest


def ia3_rows(config: PeftConfig, file: SafetensorsFile, engine: EngineManifest) -> list[Row]:
    """
    One row for each layer whose output is scaled.

    Raises:
        AdapterRefused: a tensor is unknown or misshapen, an input scale cannot be moved, or the engine cannot multiply.
    """
    if engine.lora is not None and not (engine.lora.dora and engine.lora.config_columns == 4):
        raise AdapterRefused(
            RefusalCode.DORA_UNSUPPORTED,
            f"IA3 is served through the engine's DoRA path, and the engine of {engine.base.name} was built without it.",
            "Build the engine with DoRA; IA3 has no low-rank form that would do instead.",
            {"engine": engine.base.name},
        )
    places = sort_tensors(file, engine)
    check_coverage(config, places, engine)
    scales: dict[Place, list[str]] = {}
    for place, parts in places.items():
        for part, name in parts.items():
            if part != "ia3_l":
                raise AdapterRefused(
                    RefusalCode.TENSOR_UNKNOWN,
                    f"The adapter is IA3 but holds {name}.",
                    "Hand in the adapter_config.json that was saved with these weights.",
                    {"tensor": name},
                )
            scales.setdefault(_scaled(place, name, file, engine), []).append(name)
    return [_row(place, names, file, engine) for place, names in scales.items()]


def _scaled(place: Place, name: str, file: SafetensorsFile, engine: EngineManifest) -> Place:
    """The layer whose output this scale multiplies. peft stores [out, 1] for outputs and [1, in] for inputs."""
    out, width = shape_of(place.module, engine)
    shape = file.tensors[name].shape
    if shape == (out, 1):
        return place
    if shape != (1, width):
        raise shape_refused(name, shape, (out, 1), engine)
    up = BY_NAME["mlp_gate"]
    if place.module.name != "mlp_4h_to_h":
        raise AdapterRefused(
            RefusalCode.INPUT_SCALE_UNSUPPORTED,
            f"{name} scales the input of {place.module.leaf}; the engine can scale outputs only.",
            "Train IA3 with feedforward_modules=['down_proj'] or none.",
            {"tensor": name, "module": place.module.leaf},
        )
    if engine.lora is not None and up.name not in engine.lora.modules:
        raise AdapterRefused(
            RefusalCode.MODULE_NOT_ENABLED,
            f"{name} is served as a scale on up_proj, but the engine of {engine.base.name} has no {up.name}.",
            f"Build the engine with {up.name} among its LoRA modules.",
            {"tensor": name, "module": up.name},
        )
    return Place(place.layer, up)


def _row(place: Place, names: list[str], file: SafetensorsFile, engine: EngineManifest) -> Row:
    out, width = shape_of(place.module, engine)

    def factors() -> Factors:
        scale: FloatArray = np.ones(out, np.float32)
        for name in names:
            scale = scale * finite(file.load(name), name).ravel()
        return Factors(np.zeros((MIN_RANK, width), np.float32), np.zeros((out, MIN_RANK), np.float32), scale)

    return Row(place, MIN_RANK, multiplies=True, factors=factors)
