"""
LoRA, rsLoRA, rank and alpha patterns, and DoRA as rows of factors.

Decides scale, magnitude and what a complete adapter is. The scale is folded into B in float32; DoRA's magnitude is
divided by the norms of the tuned weight, because the engine multiplies by what it is given and normalises nothing.

Does not write anything (gateway/adapters/rows.py does).
"""

from dataclasses import dataclass

import numpy as np

from gateway.adapters.base_weights import BaseWeights
from gateway.adapters.modules import BY_LEAF, Place, locate, shape_of
from gateway.adapters.peft_config import PeftConfig
from gateway.adapters.refusal import AdapterRefused, RefusalCode
from gateway.adapters.rows import Factors, Row
from gateway.adapters.safetensors_file import FloatArray, SafetensorsFile
from gateway.adapters.values import finite
from gateway.domain.manifest import EngineManifest

Parts = dict[str, str]
"""Of one layer: part (`lora_A`, …) to tensor name."""

_NORM_BLOCK_BYTES = 1 << 24


def lora_rows(config: PeftConfig, file: SafetensorsFile, engine: EngineManifest) -> list[Row]:
    """
    One row for each tuned layer.

    Raises:
        AdapterRefused: a tensor is missing, unknown, of the wrong shape or rank, or cannot be served by this engine.
    """
    places = sort_tensors(file, engine)
    check_coverage(config, places, engine)
    if config.dora:
        _check_dora(engine)
    base = BaseWeights(engine) if config.dora else None
    source = _Source(config, file, engine, base)
    return [source.row(place, parts) for place, parts in places.items()]


def sort_tensors(file: SafetensorsFile, engine: EngineManifest) -> dict[Place, Parts]:
    """Every tensor of the file, by the layer it tunes. Raises AdapterRefused for any that has no place."""
    places: dict[Place, Parts] = {}
    for name in file:
        place, part = locate(name, engine)
        parts = places.setdefault(place, {})
        if part in parts:
            raise AdapterRefused(
                RefusalCode.TENSOR_UNKNOWN,
                f"The adapter holds {part} of {place.path} twice.",
                "Save it with peft's save_pretrained and hand in that directory unchanged.",
                {"tensor": name},
            )
        parts[part] = name
    return places


def check_coverage(config: PeftConfig, places: dict[Place, Parts], engine: EngineManifest) -> None:
    """Where the configuration lists its modules, every layer must have all of them."""
    if config.targets is None or not config.targets <= set(BY_LEAF):
        return
    for layer in range(engine.num_layers):
        for leaf in sorted(config.targets):
            if Place(layer, BY_LEAF[leaf]) not in places:
                raise _missing(Place(layer, BY_LEAF[leaf]).path, "any tensor", config)


@dataclass(frozen=True, slots=True)
class _Source:
    """What every row is made from; `base` only for DoRA."""

    config: PeftConfig
    file: SafetensorsFile
    engine: EngineManifest
    base: BaseWeights | None

    def row(self, place: Place, parts: Parts) -> Row:
        self._check_parts(place, parts)
        rank = self._check_shapes(place, parts)
        self._check_bias(place)
        scaling = np.float32(self.config.scaling(place.path))

        def factors() -> Factors:
            a = self._load(parts["lora_A"])
            b = self._load(parts["lora_B"]) * scaling
            if self.base is None:
                return Factors(a, b, None)
            return Factors(a, b, self._load(parts["lora_magnitude_vector"]).ravel() / _norms(self.base, place, a, b))

        return Row(place, rank, multiplies=self.config.dora, factors=factors)

    def _load(self, name: str) -> FloatArray:
        return finite(self.file.load(name), name)

    def _check_parts(self, place: Place, parts: Parts) -> None:
        wanted = {"lora_A", "lora_B"} | ({"lora_magnitude_vector"} if self.config.dora else set())
        for part in sorted(wanted - set(parts)):
            raise _missing(place.path, part, self.config)
        for part in sorted(set(parts) - wanted):
            raise AdapterRefused(
                RefusalCode.TENSOR_UNKNOWN,
                f"The adapter holds {parts[part]}, but its configuration does not ask for it.",
                "Hand in the adapter_config.json that was saved with these weights (use_dora?).",
                {"tensor": parts[part]},
            )

    def _check_shapes(self, place: Place, parts: Parts) -> int:
        out, width = shape_of(place.module, self.engine)
        rank = self.file.tensors[parts["lora_A"]].shape[0]
        allowed: dict[str, tuple[tuple[int, ...], ...]] = {
            "lora_A": ((rank, width),),
            "lora_B": ((out, rank),),
            "lora_magnitude_vector": ((out,), (1, out), (out, 1)),
        }
        for part, name in parts.items():
            found = self.file.tensors[name].shape
            if found not in allowed[part]:
                raise shape_refused(name, found, allowed[part][0], self.engine)
        expected = self.config.rank_of(place.path)
        if rank != expected:
            raise AdapterRefused(
                RefusalCode.RANK_MISMATCH,
                f"{parts['lora_A']} has rank {rank}, but the configuration says {expected}.",
                "Hand in the adapter_config.json that was saved with these weights (r and rank_pattern).",
                {"tensor": parts["lora_A"], "rank": str(rank), "expected": str(expected)},
            )
        self._check_rank(place, rank)
        return rank

    def _check_rank(self, place: Place, rank: int) -> None:
        ability = self.engine.lora
        if ability is not None and rank > ability.max_rank:
            raise AdapterRefused(
                RefusalCode.RANK_TOO_LARGE,
                f"{place.path} has rank {rank}; the engine of {self.engine.base.name} takes ranks up to "
                f"{ability.max_rank}.",
                f"Train with r={ability.max_rank} or less, or build the engine with a larger max_lora_rank.",
                {"module": place.path, "rank": str(rank), "limit": str(ability.max_rank)},
            )

    def _check_bias(self, place: Place) -> None:
        if self.base is not None and self.base.has_bias(place):
            raise AdapterRefused(
                RefusalCode.DORA_BIASED_LAYER,
                f"The adapter is DoRA on {place.path}, which has a bias: the engine would scale it, peft does not.",
                "Train DoRA only on layers without a bias (o_proj, gate_proj, up_proj, down_proj), or plain LoRA.",
                {"module": place.path},
            )


def _norms(base: BaseWeights, place: Place, a: FloatArray, b: FloatArray) -> FloatArray:
    """Lengths of the rows of W + B A, [out], summed in float32 as peft does, a block of rows at a time."""
    out, width = b.shape[0], a.shape[1]
    block = max(1, _NORM_BLOCK_BYTES // (4 * width))
    norms = np.empty(out, np.float32)
    for start in range(0, out, block):
        stop = min(start + block, out)
        norms[start:stop] = np.linalg.norm(base.rows(place, start, stop) + b[start:stop] @ a, axis=1)
    if not np.all(norms > 0):
        raise AdapterRefused(
            RefusalCode.NOT_FINITE,
            f"A row of the tuned weight of {place.path} has length 0, so its direction is undefined.",
            "Check that the adapter was trained on this base.",
            {"module": place.path},
        )
    return norms


def _check_dora(engine: EngineManifest) -> None:
    if engine.lora is not None and not (engine.lora.dora and engine.lora.config_columns == 4):
        raise AdapterRefused(
            RefusalCode.DORA_UNSUPPORTED,
            f"The adapter is DoRA, and the engine of {engine.base.name} was built without it: it would drop the "
            "magnitude and answer something else.",
            "Build the engine with DoRA, or train plain LoRA.",
            {"engine": engine.base.name},
        )


def shape_refused(
    tensor: str, found: tuple[int, ...], expected: tuple[int, ...], engine: EngineManifest
) -> AdapterRefused:
    """The refusal of a tensor whose shape is not the one this base needs."""
    return AdapterRefused(
        RefusalCode.SHAPE_MISMATCH,
        f"{tensor} has shape {list(found)}; {engine.base.name} needs {list(expected)}.",
        "It was trained on another base; name the right one with --base.",
        {"tensor": tensor, "shape": str(list(found)), "expected": str(list(expected))},
    )


def _missing(place: str, part: str, config: PeftConfig) -> AdapterRefused:
    return AdapterRefused(
        RefusalCode.TENSOR_MISSING,
        f"The adapter lacks {part} for {place}.",
        "The file is incomplete; save the adapter again with peft's save_pretrained.",
        {"module": place, "peft_type": config.peft_type},
    )
