"""
Rows of `lora_weights`: what one tuned layer looks like to the engine, and the file they are written to.

Decides layout, padding, order, the single cast to the engine's element type, and what values may be in it. Does not
know which kind of adapter a row came from.

Source: TensorRT-LLM, docs/source/advanced/lora.md and examples/hf_lora_convert.py.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from gateway.adapters.modules import ATTENTION_INPUTS, Place, shape_of
from gateway.adapters.refusal import AdapterRefused, RefusalCode
from gateway.adapters.safetensors_file import FloatArray
from gateway.domain.manifest import Dtype, EngineManifest, LoraAbility
from gateway.domain.version import DerivedFile, DerivedLora

MIN_RANK = 8
"""The engine's kernels take ranks in steps of 8; smaller ones are filled with zeros, which changes nothing."""

MAX_MESSAGE_BYTES = (1 << 31) - (1 << 20)
"""gRPC's limit on both sides is 2 GiB a message; the rest of the request needs some of it."""

MAX_MAGNITUDE = 1e6
"""No trained adapter comes near; a value beyond it would overflow somewhere inside the base."""

_SIGNIFICANT = 1e-5
_NUMPY: dict[Dtype, np.dtype[Any]] = {
    Dtype.FLOAT32: np.dtype("<f4"),
    Dtype.FLOAT16: np.dtype("<f2"),
    Dtype.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
}


@dataclass(frozen=True, slots=True)
class Factors:
    """
    What is added to and multiplied onto one layer's output: y = m * (W x + b + B A x), in float32.

    `a`: [rank, in]. `b`: [out, rank], scale included. `m`: [out], or None for no multiplication.
    """

    a: FloatArray
    b: FloatArray
    m: FloatArray | None


@dataclass(frozen=True, slots=True)
class Row:
    """One row before its values are read: `factors` makes them, so that only one layer is ever in memory."""

    place: Place
    rank: int
    multiplies: bool
    factors: Callable[[], Factors]

    @property
    def padded_rank(self) -> int:
        return max(self.rank, MIN_RANK)


def element_type(dtype: Dtype) -> np.dtype[Any]:
    """numpy's name for an engine's element type."""
    return _NUMPY[dtype]


def zero_row(place: Place, engine: EngineManifest) -> Row:
    """A row that changes nothing."""
    out, width = shape_of(place.module, engine)

    def factors() -> Factors:
        return Factors(np.zeros((MIN_RANK, width), np.float32), np.zeros((out, MIN_RANK), np.float32), None)

    return Row(place, MIN_RANK, multiplies=False, factors=factors)


def complete(rows: Sequence[Row], engine: EngineManifest) -> list[Row]:
    """
    All rows in the engine's order, by layer and module.

    Where an adapter tunes only some of q, k and v, the others get rows of zeros: the engine computes the three
    together, and its own Python loader fills them in the same way.
    """
    present = {row.place for row in rows}
    enabled = () if engine.lora is None else engine.lora.modules
    missing = [
        place
        for layer in sorted({row.place.layer for row in rows if row.place.module in ATTENTION_INPUTS})
        for module in ATTENTION_INPUTS
        if module.name in enabled and (place := Place(layer, module)) not in present
    ]
    everything = [*rows, *(zero_row(place, engine) for place in missing)]
    return sorted(everything, key=lambda row: (row.place.layer, row.place.module.id))


def write_rows(rows: Sequence[Row], engine: EngineManifest, ability: LoraAbility, folder: Path) -> DerivedLora:
    """
    Write `lora_weights.bin` and `lora_config.bin`.

    Weights: [rows, width] of the engine's element type, each row A, then B, then m where there is one, then zeros.
    Config: [rows, columns] int32.

    Raises:
        AdapterRefused: too large for one message or for the engine's cache, a value out of range, or no effect at all.
    """
    dtype = element_type(ability.dtype)
    width = max(_row_length(row, engine) for row in rows)
    nbytes = len(rows) * width * dtype.itemsize
    _check_size(nbytes, ability)
    digest = hashlib.sha256()
    config = np.zeros((len(rows), ability.config_columns), dtype="<i4")
    effective = False
    with (folder / "lora_weights.bin").open("wb") as file:
        for index, row in enumerate(rows):
            factors = row.factors()
            effective = effective or _has_effect(factors)
            line = np.zeros(width, dtype=dtype)
            values = np.concatenate([part.ravel() for part in _padded(factors, row.padded_rank)])
            _check_values(values, row.place, dtype)
            line[: values.size] = values.astype(dtype)
            content = line.tobytes()
            digest.update(content)
            file.write(content)
            entry = (row.place.module.id, row.place.layer, row.padded_rank, int(row.multiplies))
            config[index] = entry[: ability.config_columns]
    if not effective:
        raise AdapterRefused(
            RefusalCode.NO_EFFECT,
            "The adapter changes nothing: every product of its factors is zero and every scale is one.",
            "Hand in the adapter as it was after training.",
        )
    content = config.tobytes()
    (folder / "lora_config.bin").write_bytes(content)
    return DerivedLora(
        rows=len(rows),
        width=width,
        columns=ability.config_columns,
        dtype=ability.dtype,
        max_rank=max(row.padded_rank for row in rows),
        weights=DerivedFile(name="lora_weights.bin", bytes=nbytes, sha256=digest.hexdigest()),
        config=DerivedFile(name="lora_config.bin", bytes=len(content), sha256=hashlib.sha256(content).hexdigest()),
    )


def _row_length(row: Row, engine: EngineManifest) -> int:
    out, width = shape_of(row.place.module, engine)
    return row.padded_rank * (out + width) + (out if row.multiplies else 0)


def _check_size(nbytes: int, ability: LoraAbility) -> None:
    limit = min(MAX_MESSAGE_BYTES, ability.cache_bytes)
    if nbytes > limit:
        what = (
            "one message to the engine can carry" if limit == MAX_MESSAGE_BYTES else "the engine's adapter cache holds"
        )
        raise AdapterRefused(
            RefusalCode.ADAPTER_TOO_LARGE,
            f"The adapter needs {nbytes:,} bytes as the engine takes it, more than {what} ({limit:,}).",
            "Train with a smaller rank or on fewer layers.",
            {"bytes": str(nbytes), "limit_bytes": str(limit)},
        )


def _padded(factors: Factors, rank: int) -> tuple[FloatArray, ...]:
    missing = rank - factors.a.shape[0]
    a = np.pad(factors.a, ((0, missing), (0, 0))) if missing else factors.a
    b = np.pad(factors.b, ((0, 0), (0, missing))) if missing else factors.b
    return (a, b) if factors.m is None else (a, b, factors.m)


def _has_effect(factors: Factors) -> bool:
    if factors.m is not None and bool(np.any(np.abs(factors.m - 1) > _SIGNIFICANT)):
        return True
    return bool(np.any(factors.a)) and bool(np.any(factors.b))


def _check_values(values: FloatArray, place: Place, dtype: np.dtype[Any]) -> None:
    largest = float(np.max(np.abs(values)))
    limit = min(MAX_MAGNITUDE, float(ml_dtypes.finfo(dtype).max))
    if not largest <= limit:
        raise AdapterRefused(
            RefusalCode.VALUE_OUT_OF_RANGE,
            f"A value of {largest:.3g} in {place.path} is beyond {limit:.6g}, the most {dtype.name} engines are sent.",
            "Its training has probably diverged; hand in an earlier checkpoint.",
            {"module": place.path, "value": f"{largest:.6g}", "limit": f"{limit:.6g}"},
        )
