"""
Finds the two files of an adapter in a directory that peft wrote.

Decides what counts as one: plain files, inside the directory, weights in safetensors. Pickle is never opened; it runs
code. Other files (README, tokenizer, optimiser) are left alone.
"""

import stat
from dataclasses import dataclass
from pathlib import Path

from gateway.adapters.refusal import AdapterRefused, RefusalCode

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth", "adapter_model.ckpt", "pytorch_model.bin")


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """One adapter's two files."""

    config: Path
    weights: Path


def find_adapter(directory: Path) -> AdapterFiles:
    """
    The adapter in `directory`.

    Raises:
        AdapterRefused: a file is missing, is a pickle, is no plain file, or is a link that leads out of the directory.
    """
    if not directory.is_dir():
        raise AdapterRefused(
            RefusalCode.MISSING_FILE,
            f"There is no directory {directory}.",
            "Name the directory that peft's save_pretrained wrote.",
            {"path": str(directory)},
        )
    if not (directory / WEIGHTS).exists():
        for name in _PICKLES:
            if (directory / name).exists():
                raise AdapterRefused(
                    RefusalCode.PICKLE_WEIGHTS,
                    f"{directory / name} is a pickle, and opening a pickle runs whatever code is in it.",
                    f"Load the adapter in peft where it was trained and save it again with "
                    f"save_pretrained(..., safe_serialization=True), which writes {WEIGHTS}.",
                    {"file": name},
                )
    return AdapterFiles(_plain_file(directory, CONFIG), _plain_file(directory, WEIGHTS))


def _plain_file(directory: Path, name: str) -> Path:
    path = directory / name
    root = directory.resolve()
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
    except (OSError, RuntimeError) as error:
        raise AdapterRefused(
            RefusalCode.MISSING_FILE,
            f"{directory} has no {name}.",
            "Name the directory that peft's save_pretrained wrote.",
            {"file": name},
        ) from error
    if not real.is_relative_to(root):
        raise AdapterRefused(
            RefusalCode.SYMLINK_OUTSIDE,
            f"{path} is a link to a place outside its directory.",
            f"Copy the files themselves: cp -rL {directory} COPY, and name the copy.",
            {"file": name},
        )
    if not stat.S_ISREG(mode):
        raise AdapterRefused(
            RefusalCode.NOT_A_REGULAR_FILE,
            f"{path} is no plain file.",
            "Name the directory that peft's save_pretrained wrote.",
            {"file": name},
        )
    return real
