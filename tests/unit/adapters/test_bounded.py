"""
The conversion's own process: the same answers as in this one, and an answer however it ends.
"""

from pathlib import Path

import numpy as np
import pytest

from gateway.adapters.bounded import convert_bounded
from gateway.adapters.convert import convert
from gateway.adapters.directory import find_adapter
from gateway.adapters.job_limits import JobLimits
from gateway.adapters.refusal import AdapterRefused, RefusalCode
from gateway.domain.registry_errors import StorageFull
from tests.unit.adapters.handmade import engine, lora_config, lora_tensors, write


def test_it_makes_what_converting_here_makes(tmp_path: Path, out: Path) -> None:
    files = [find_adapter(write(tmp_path / "adapter", lora_config(), lora_tensors()))]
    here = tmp_path / "here"
    here.mkdir()
    assert convert_bounded(files, engine(), out) == convert(files, engine(), here)
    assert sorted(path.name for path in out.iterdir()) == ["lora_config.bin", "lora_weights.bin"]
    for path in out.iterdir():
        assert path.read_bytes() == (here / path.name).read_bytes()


def test_a_refusal_comes_through_whole(tmp_path: Path, out: Path) -> None:
    files = [find_adapter(write(tmp_path / "adapter", lora_config(r=4), lora_tensors()))]
    with pytest.raises(AdapterRefused) as caught:
        convert_bounded(files, engine(), out)
    assert caught.value.code is RefusalCode.RANK_MISMATCH
    assert caught.value.details["expected"] == "4"


def test_a_pattern_that_never_ends_is_stopped(tmp_path: Path, out: Path) -> None:
    config = lora_config(rank_pattern={"(([a-z0-9_.]+)+)+X": 4})
    files = [find_adapter(write(tmp_path / "adapter", config, lora_tensors()))]
    with pytest.raises(AdapterRefused) as caught:
        convert_bounded(files, engine(), out, limits=JobLimits(timeout_s=1))
    assert caught.value.code is RefusalCode.CONVERSION_TIMEOUT
    assert "was stopped" in caught.value.message


def test_too_little_memory_is_an_answer(tmp_path: Path, out: Path) -> None:
    files = [find_adapter(write(tmp_path / "adapter", lora_config(), lora_tensors()))]
    with pytest.raises(AdapterRefused) as caught:
        convert_bounded(files, engine(), out, limits=JobLimits(address_space_bytes=1 << 20))
    assert caught.value.code is RefusalCode.CONVERSION_FAILED


def test_a_full_disk_is_not_the_adapters_fault(tmp_path: Path, out: Path) -> None:
    """A limit on file size fails a write in the middle, as a full disk does."""
    files = [find_adapter(write(tmp_path / "adapter", lora_config(), lora_tensors()))]
    with pytest.raises(StorageFull):
        convert_bounded(files, engine(), out, limits=JobLimits(file_bytes=4096))


def test_the_product_knows_no_pickle() -> None:
    """No module that serves or converts can open one."""
    package = Path(__file__).parents[3] / "gateway"
    for source in package.rglob("*.py"):
        text = source.read_text()
        for word in ("import pickle", "torch.load", "allow_pickle=True", "np.load("):
            assert word not in text, f"{source} says {word}"


def test_one_bad_value_among_many_is_found(tmp_path: Path, out: Path) -> None:
    tensors = lora_tensors()
    name = sorted(tensors)[-1]
    tensors[name][-1, -1] = np.nan
    files = [find_adapter(write(tmp_path / "adapter", lora_config(), tensors))]
    with pytest.raises(AdapterRefused) as caught:
        convert_bounded(files, engine(), out)
    assert caught.value.details["tensor"] == name
