"""
Adapters on disk, as they are committed.

Decides: which files an adapter directory has, that they name the base by its name and never by a path, the order of
what peft keeps as sets, and the number format.
Does not know: how an adapter was trained.
"""

import json
import shutil
import tempfile
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def save_adapter(model: PeftModel, directory: Path, *, base_name: str, dtype: torch.dtype) -> None:
    """Write adapter_config.json and adapter_model.safetensors, all or nothing, in place of what `directory` held."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}-") as name:
        work = Path(name) / "adapter"
        model.eval()
        model.save_pretrained(work, save_embedding_layers=False)
        tensors = {key: value.to(dtype).contiguous() for key, value in load_file(work / WEIGHTS).items()}
        save_file(tensors, work / WEIGHTS, metadata={"format": "pt"})
        _name_the_base(work / CONFIG, base_name)
        for path in work.iterdir():
            if path.name not in (WEIGHTS, CONFIG):
                path.unlink()
            else:
                # safetensors makes files that only their owner can read.
                path.chmod(0o644)
        if directory.exists():
            shutil.rmtree(directory)
        work.rename(directory)


def _name_the_base(path: Path, base_name: str) -> None:
    """Put the base's name where peft wrote this machine's path, and sort what peft wrote out of a set."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base_name
    if config.get("tokenizer_name_or_path"):
        config["tokenizer_name_or_path"] = base_name
    for key in ("target_modules", "feedforward_modules"):
        if isinstance(config.get(key), list):
            config[key] = sorted(config[key])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
