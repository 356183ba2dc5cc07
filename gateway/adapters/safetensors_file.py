"""
A safetensors file, read by memory map, with a header that is checked before anything believes it.

Decides what header is acceptable. The format's own library takes a 50 MB header, 300,000 empty tensors, and duplicate
names; all of them cost seconds or hide bytes, so this reader is stricter. Does not know what the tensors mean.

Source of the format: huggingface/safetensors, README.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from gateway.adapters.refusal import AdapterRefused, RefusalCode

FloatArray = npt.NDArray[np.float32]

MAX_HEADER_BYTES = 1 << 20
MAX_TENSORS = 8192
MAX_METADATA_BYTES = 1 << 16
MAX_DIMENSIONS = 4

_NAME = re.compile(r"[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*")
_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
# Known element types that are no floats we convert: told apart from garbage, because the answer differs.
_OTHER_DTYPES = frozenset({"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F8_E4M3", "F8_E5M2", "C64"})


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where one tensor lies: `offset` and `nbytes` from the start of the file."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    nbytes: int


class SafetensorsFile:
    """The tensors of one file by name. Nothing is read until `load`."""

    def __init__(self, path: Path, *, strict: bool = True) -> None:
        """
        Read and check the header.

        `strict` is for files that were handed in. The base's own checkpoint may hold any element type and more tensors,
        and is trusted to be laid out by the format's own rules.

        Raises:
            AdapterRefused: the header breaks a rule; the message names which.
        """
        self.path = path
        self.tensors = _read_header(path, strict=strict)

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def load(self, name: str) -> FloatArray:
        """One tensor as float32, copied out of the map."""
        return self.load_rows(name, 0, self.tensors[name].shape[0])

    def load_rows(self, name: str, start: int, stop: int) -> FloatArray:
        """
        Rows [start, stop) of a tensor as float32; only they are mapped, so a layer of any size costs what is asked.
        """
        tensor = self.tensors[name]
        row_bytes = tensor.nbytes // tensor.shape[0]
        view = np.memmap(
            self.path,
            dtype=np.uint8,
            mode="r",
            offset=tensor.offset + start * row_bytes,
            shape=((stop - start) * row_bytes,),
        )
        return np.array(view.view(tensor.dtype).reshape(stop - start, *tensor.shape[1:]), dtype=np.float32)


def _read_header(path: Path, *, strict: bool) -> dict[str, Tensor]:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        if len(head) < 8:
            raise _invalid(path, "is shorter than the 8 bytes that give its header's length")
        length = int.from_bytes(head, "little")
        if length > size - 8:
            raise _invalid(path, f"claims a header of {length} bytes but has only {size - 8} more; it is truncated")
        if strict and length > MAX_HEADER_BYTES:
            raise _invalid(path, f"has a header of {length} bytes; at most {MAX_HEADER_BYTES} are read")
        text = file.read(length)
    if not text.startswith(b"{"):
        raise _invalid(path, "has a header that is not a JSON object")
    header = _parse_json(path, text)
    metadata = header.pop("__metadata__", {})
    if strict and len(json.dumps(metadata)) > MAX_METADATA_BYTES:
        raise _invalid(path, f"has more than {MAX_METADATA_BYTES} bytes of metadata")
    if not header:
        raise _invalid(path, "holds no tensor")
    if strict and len(header) > MAX_TENSORS:
        raise _invalid(path, f"holds {len(header)} tensors; at most {MAX_TENSORS} are read")
    tensors = {}
    data = 8 + length
    for name, entry in header.items():
        tensor = _tensor(path, name, entry, data, strict=strict)
        if tensor is not None:
            tensors[name] = tensor
    if strict:
        _check_layout(path, tensors, data, size)
    return tensors


def _parse_json(path: Path, text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise _invalid(path, "names the same key twice in its header")
        return found

    try:
        header = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise _invalid(path, "has a header that is not JSON") from error
    if not isinstance(header, dict):
        raise _invalid(path, "has a header that is not a JSON object")
    return header


def _tensor(path: Path, name: str, entry: object, data: int, *, strict: bool) -> Tensor | None:
    if len(name) > 512 or not _NAME.fullmatch(name):
        if strict:
            raise _invalid(path, f"holds a tensor whose name is not plain dotted text: {name[:80]!r}")
        return None
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _invalid(path, f"describes tensor {name} by other keys than dtype, shape and data_offsets")
    dtype_name, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not _whole_numbers(shape) or len(shape) > MAX_DIMENSIONS:
        raise _invalid(path, f"gives tensor {name} a shape that is not up to {MAX_DIMENSIONS} whole numbers")
    if not _whole_numbers(offsets) or len(offsets) != 2 or offsets[1] < offsets[0]:
        raise _invalid(path, f"gives tensor {name} no valid pair of offsets")
    dtype_name = dtype_name if isinstance(dtype_name, str) else "?"
    dtype = _DTYPES.get(dtype_name)
    if dtype is None:
        if not strict:
            return None
        if dtype_name in _OTHER_DTYPES:
            raise AdapterRefused(
                RefusalCode.DTYPE_UNSUPPORTED,
                f"Tensor {name} has element type {dtype_name}.",
                "Save the adapter in float32, float16 or bfloat16.",
                {"tensor": name, "dtype": dtype_name},
            )
        raise _invalid(path, f"gives tensor {name} the unknown element type {dtype_name[:40]!r}")
    nbytes = offsets[1] - offsets[0]
    if not shape or prod(shape) == 0:
        raise _invalid(path, f"holds tensor {name} without elements")
    if prod(shape) * dtype.itemsize != nbytes:
        raise _invalid(path, f"gives tensor {name} {nbytes} bytes where its shape needs {prod(shape) * dtype.itemsize}")
    return Tensor(name, dtype, tuple(shape), data + offsets[0], nbytes)


def _whole_numbers(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 48 for item in value)


def _check_layout(path: Path, tensors: dict[str, Tensor], data: int, size: int) -> None:
    """Tensors lie end to end: no overlap, no gap, nothing after the last one."""
    position = data
    for tensor in sorted(tensors.values(), key=lambda tensor: tensor.offset):
        if tensor.offset != position:
            kind = "overlaps the one before it" if tensor.offset < position else "leaves a gap before it"
            raise _invalid(path, f"holds tensor {tensor.name}, which {kind}")
        position += tensor.nbytes
    if position != size:
        kind = "is truncated" if position > size else "has bytes after its last tensor"
        raise _invalid(path, f"{kind}: {size} bytes where its header describes {position}")


def _invalid(path: Path, reason: str) -> AdapterRefused:
    return AdapterRefused(
        RefusalCode.INVALID_SAFETENSORS,
        f"{path.name} {reason}.",
        "Save the adapter again with peft's save_pretrained and hand in that directory unchanged.",
        {"file": path.name},
    )
