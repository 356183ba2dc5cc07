"""
A GGUF file to a Hugging Face directory.

Decides: float16 on disk (half the bytes; arithmetic in float32 gives the same greedy answers as float32 weights, which
bfloat16 weights do too but bfloat16 arithmetic does not), and a config that makes loaders compute in float32.
Does not know: where the file came from and where the directory ends up.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from build.smollm2_base.gguf_tokenizer import write_tokenizer
from build.smollm2_base.gguf_weights import GgufLlama


def convert(gguf: Path, directory: Path, *, on_tensor: Callable[[int, int], None] = lambda done, total: None) -> None:
    """
    Write config.json, generation_config.json, model.safetensors and the tokenizer's files into `directory`.

    on_tensor: told how many tensors are done, and of how many.

    Raises:
        UnsupportedGguf: the file is not of the known kind.
    """
    source = GgufLlama(gguf)
    _write_json(directory / "config.json", _config(source))
    _write_json(directory / "generation_config.json", _generation_config(source))
    write_tokenizer(source, directory)
    tensors: dict[str, npt.NDArray[np.float16]] = {}
    for name, values in source.tensors():
        tensors[name] = np.ascontiguousarray(values, dtype=np.float16)
        on_tensor(len(tensors), source.tensor_count)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def _write_json(path: Path, document: dict[str, object]) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _config(source: GgufLlama) -> dict[str, object]:
    shape = source.shape
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": source.metadata_int("tokenizer.ggml.bos_token_id"),
        # Not the format on disk: transformers loads in what stands here, and a CPU computes right in float32 alone.
        "dtype": "float32",
        "eos_token_id": source.metadata_int("tokenizer.ggml.eos_token_id"),
        "head_dim": shape.head_size,
        "hidden_act": "silu",
        "hidden_size": shape.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate_size,
        "max_position_embeddings": shape.max_positions,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": shape.num_heads,
        "num_hidden_layers": shape.num_layers,
        "num_key_value_heads": shape.num_kv_heads,
        "pad_token_id": source.metadata_int("tokenizer.ggml.padding_token_id"),
        "rms_norm_eps": shape.rms_norm_eps,
        "rope_parameters": {"rope_theta": shape.rope_theta, "rope_type": "default"},
        "tie_word_embeddings": not source.has_own_head,
        "use_cache": True,
        "vocab_size": shape.vocab_size,
    }


def _generation_config(source: GgufLlama) -> dict[str, object]:
    return {
        "bos_token_id": source.metadata_int("tokenizer.ggml.bos_token_id"),
        "do_sample": False,
        "eos_token_id": source.metadata_int("tokenizer.ggml.eos_token_id"),
        "pad_token_id": source.metadata_int("tokenizer.ggml.padding_token_id"),
    }
