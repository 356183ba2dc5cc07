"""
Which directories hold an adapter, and what is said of those that do not.
"""

import os
from pathlib import Path

import pytest

from gateway.adapters.directory import find_adapter
from gateway.adapters.refusal import AdapterRefused, RefusalCode
from tests.unit.adapters.handmade import lora_config, lora_tensors, write


def refused(directory: Path) -> AdapterRefused:
    with pytest.raises(AdapterRefused) as caught:
        find_adapter(directory)
    return caught.value


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write(tmp_path / "adapter", lora_config(), lora_tensors())


def test_other_files_are_left_alone(adapter: Path) -> None:
    (adapter / "training_args.bin").write_bytes(b"\x80\x02.")
    (adapter / "adapter_model.bin").write_bytes(b"\x80\x02.")
    found = find_adapter(adapter)
    assert found.weights.name == "adapter_model.safetensors"
    assert found.config.name == "adapter_config.json"


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt", "adapter_model.pth", "adapter_model.ckpt"])
def test_a_pickle_is_never_opened(name: str, adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / name)
    error = refused(adapter)
    assert error.code is RefusalCode.PICKLE_WEIGHTS
    assert "runs whatever code is in it" in error.message
    assert "safe_serialization=True" in error.hint


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file_is_named(name: str, adapter: Path) -> None:
    (adapter / name).unlink()
    error = refused(adapter)
    assert error.code is RefusalCode.MISSING_FILE
    assert name in error.message


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    error = refused(tmp_path / "nowhere")
    assert error.code is RefusalCode.MISSING_FILE
    assert "nowhere" in error.message


def test_a_link_that_leads_outside_is_refused(adapter: Path, tmp_path: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    weights.rename(tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    error = refused(adapter)
    assert error.code is RefusalCode.SYMLINK_OUTSIDE
    assert "cp -rL" in error.hint


def test_a_link_inside_is_followed(adapter: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    weights.rename(adapter / "blob")
    weights.symlink_to("blob")
    assert find_adapter(adapter).weights == adapter / "blob"


def test_a_link_to_itself_is_a_missing_file(adapter: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    weights.unlink()
    weights.symlink_to(weights)
    assert refused(adapter).code is RefusalCode.MISSING_FILE


def test_a_pipe_is_refused_without_waiting_for_it(adapter: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    weights.unlink()
    os.mkfifo(weights)
    assert refused(adapter).code is RefusalCode.NOT_A_REGULAR_FILE
