"""
Files made to break a reader: each is refused with a sentence that says what is wrong, before its data is touched.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from gateway.adapters.refusal import AdapterRefused, RefusalCode
from gateway.adapters.safetensors_file import MAX_HEADER_BYTES, MAX_TENSORS, SafetensorsFile
from tests.unit.adapters.handmade import raw_safetensors


def entry(start: int = 0, stop: int = 8, shape: tuple[int, ...] = (2,), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


def header(**tensors: Any) -> bytes:
    return json.dumps(tensors).encode()


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "shorter than the 8 bytes"),
    "seven bytes": (lambda: b"\x01" * 7, "shorter than the 8 bytes"),
    "a pickle by another name": (lambda: b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01K\x01u.", "truncated"),
    "a zip by another name": (lambda: b"PK\x03\x04" + bytes(200), "truncated"),
    "a header longer than the file": (lambda: (1 << 62).to_bytes(8, "little") + b"{}", "truncated"),
    "a header of 50 MB": (
        lambda: raw_safetensors(b'{"__metadata__":{"a":"' + b"x" * (50 << 20) + b'"}}'),
        f"at most {MAX_HEADER_BYTES} are read",
    ),
    "metadata of 100 KB": (
        lambda: raw_safetensors(header(__metadata__={"a": "x" * 100_000}, t=entry()), bytes(8)),
        "bytes of metadata",
    ),
    "no JSON": (lambda: raw_safetensors(b"{nonsense"), "not JSON"),
    "no object": (lambda: raw_safetensors(b"[1, 2]"), "not a JSON object"),
    "brackets without end": (lambda: raw_safetensors(b'{"a":' + b"[" * 200_000), "not JSON"),
    "no tensor": (lambda: raw_safetensors(b"{}"), "holds no tensor"),
    "ten thousand tensors": (
        lambda: raw_safetensors(header(**{f"t{index}": entry() for index in range(MAX_TENSORS + 1)})),
        f"at most {MAX_TENSORS}",
    ),
    "one name twice": (
        lambda: raw_safetensors(b'{"t":%b,"t":%b}' % (header(**entry()), header(**entry()))),
        "the same key twice",
    ),
    "a name like a path": (lambda: raw_safetensors(header(**{"../../etc/passwd": entry()}), bytes(8)), "plain dotted"),
    "a name with a line break": (lambda: raw_safetensors(header(**{"a\nb": entry()}), bytes(8)), "plain dotted"),
    "a tensor that is a number": (lambda: raw_safetensors(header(t=1)), "other keys than"),
    "a tensor with one key more": (lambda: raw_safetensors(header(t=entry() | {"x": 1})), "other keys than"),
    "a shape of text": (lambda: raw_safetensors(header(t=entry() | {"shape": ["2"]}), bytes(8)), "whole numbers"),
    "a negative shape": (lambda: raw_safetensors(header(t=entry(shape=(-2,))), bytes(8)), "whole numbers"),
    "a shape that is true": (lambda: raw_safetensors(header(t=entry() | {"shape": [True]}), bytes(8)), "whole numbers"),
    "a shape beyond all memory": (
        lambda: raw_safetensors(header(t=entry(shape=(1 << 40, 1 << 40))), bytes(8)),
        "8 bytes where its shape needs",
    ),
    "a shape that overflows 64 bits to 8": (
        lambda: raw_safetensors(header(t=entry(shape=(1 << 32, 1 << 31, 2))), bytes(8)),
        "8 bytes where its shape needs",
    ),
    "five dimensions": (lambda: raw_safetensors(header(t=entry(shape=(2, 1, 1, 1, 1))), bytes(8)), "up to 4"),
    "no elements": (lambda: raw_safetensors(header(t=entry(0, 0, (0,)))), "without elements"),
    "a scalar": (lambda: raw_safetensors(header(t=entry(0, 4, ())), bytes(4)), "without elements"),
    "offsets that run backwards": (lambda: raw_safetensors(header(t=entry(8, 0)), bytes(8)), "pair of offsets"),
    "three offsets": (
        lambda: raw_safetensors(header(t=entry() | {"data_offsets": [0, 4, 8]}), bytes(8)),
        "pair of offsets",
    ),
    "an offset of 19 digits": (lambda: raw_safetensors(header(t=entry(0, 10**18)), bytes(8)), "pair of offsets"),
    "overlapping tensors": (
        lambda: raw_safetensors(header(a=entry(0, 8), b=entry(4, 12)), bytes(12)),
        "overlaps the one before",
    ),
    "a gap": (lambda: raw_safetensors(header(a=entry(0, 8), b=entry(16, 24)), bytes(24)), "leaves a gap"),
    "data cut off": (lambda: raw_safetensors(header(t=entry()), bytes(7)), "is truncated"),
    "data too many": (lambda: raw_safetensors(header(t=entry()), bytes(9)), "bytes after its last tensor"),
    "an unknown type": (lambda: raw_safetensors(header(t=entry(dtype="F3")), bytes(8)), "unknown element type"),
    "a type that is a list": (lambda: raw_safetensors(header(t=entry() | {"dtype": ["F32"]}), bytes(8)), "unknown"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused(kind: str, tmp_path: Path) -> None:
    make, words = HOSTILE[kind]
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(make())
    with pytest.raises(AdapterRefused) as caught:
        SafetensorsFile(path)
    assert caught.value.code is RefusalCode.INVALID_SAFETENSORS
    assert words in caught.value.message
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_values_come_out_as_they_went_in(dtype: type, tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    values = np.arange(12, dtype=dtype).reshape(4, 3) / 8
    save_file({"first": np.ones(3, np.float32), "a.b": values}, path)
    file = SafetensorsFile(path)
    assert set(file) == {"first", "a.b"}
    assert file.tensors["a.b"].shape == (4, 3)
    assert np.array_equal(file.load("a.b"), values.astype(np.float32))
    assert np.array_equal(file.load_rows("a.b", 1, 3), values[1:3].astype(np.float32))


def test_bfloat16_is_read(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 3e38], ml_dtypes.bfloat16)
    path = tmp_path / "t.safetensors"
    path.write_bytes(raw_safetensors(header(t=entry(0, 6, (3,), "BF16")), values.tobytes()))
    assert np.array_equal(SafetensorsFile(path).load("t"), values.astype(np.float32))


def test_what_was_loaded_does_not_change_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    save_file({"t": np.ones(3, np.float32)}, path)
    loaded = SafetensorsFile(path).load("t")
    with path.open("r+b") as file:
        file.seek(-12, 2)
        file.write(bytes(12))
    assert loaded.tolist() == [1, 1, 1]
