"""
An engine out of an engine directory.

Decides how the parts are put together and what is checked before the first request. Does not know Triton.
"""

import os
import secrets
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from pathlib import Path

import torch

from .adapter import module_shapes
from .answers import Delivery
from .checkpoint import ModelConfig, load_weights, read_config
from .decoder import Decoder
from .errors import EngineLoadError
from .executor import Executor
from .manifest import EngineOptions, Manifest, read_manifest, read_options
from .stats import Stats

# Elements of the largest matrix of a layer up to which one thread is the quickest.
SMALL_MATRIX = 1 << 20


def load_engine(
    engine_dir: Path,
    parameters: Mapping[str, str],
    deliver: Callable[[Seq[Delivery]], None],
    on_stats: Callable[[Stats], None],
) -> Executor:
    """
    Load the checkpoint that the manifest names and make it ready to run.

    parameters  those of config.pbtxt, as strings

    Raises:
        EngineLoadError: the manifest, the parameters and the checkpoint do not fit together.
    """
    manifest, options = read_manifest(engine_dir), read_options(parameters)
    checkpoint = Path(manifest.base.checkpoint)
    config = read_config(checkpoint)
    check_fit(manifest, options, config)
    torch.set_num_threads(options.threads or suitable_threads(config, len(os.sched_getaffinity(0))))
    weights = load_weights(checkpoint, config, manifest.torch_dtype)
    decoder = Decoder(config, weights, manifest.max_total_tokens)
    return Executor(manifest, options, config, decoder, deliver, on_stats, lambda: secrets.randbits(64))


def suitable_threads(config: ModelConfig, cores: int) -> int:
    """
    Threads for a model where nothing is said: one core is left to the server and the gateway.

    Threads wait for each other some hundred times a step, so one that shares its core stops them all: on two cores
    two threads were 1.4 times as fast as one on an idle machine, and a quarter as fast beside one other busy process. A
    small model loses more by waiting than it gains.
    """
    return 1 if 2 * config.intermediate_size * config.hidden_size < SMALL_MATRIX else max(1, cores - 1)


def check_fit(manifest: Manifest, options: EngineOptions, config: ModelConfig) -> None:
    """
    Refuse a manifest that promises what checkpoint and parameters cannot keep.

    Raises:
        EngineLoadError
    """
    promised = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_layers": config.num_layers,
        "num_heads": config.num_heads,
        "num_kv_heads": config.num_kv_heads,
        "head_size": config.head_size,
    }
    for name, found in promised.items():
        if getattr(manifest, name) != found:
            raise EngineLoadError(
                f"the manifest says {name} {getattr(manifest, name)}, but the checkpoint {manifest.base.checkpoint} "
                f"has {found}; build the engine again"
            )
    if manifest.max_total_tokens > config.max_positions:
        raise EngineLoadError(
            f"the manifest says max_total_tokens {manifest.max_total_tokens}, but the checkpoint has only "
            f"{config.max_positions} positions; build the engine with fewer"
        )
    block = manifest.kv_reuse.tokens_per_block
    if options.kv_cache_tokens // block * block < manifest.max_total_tokens:
        raise EngineLoadError(
            f"max_tokens_in_paged_kv_cache is {options.kv_cache_tokens}, too little for one request of "
            f"{manifest.max_total_tokens} tokens (max_total_tokens) in blocks of {block}"
        )
    if manifest.lora is not None:
        unknown = sorted(set(manifest.lora.modules) - set(module_shapes(config)))
        if unknown:
            raise EngineLoadError(
                f"the manifest names LoRA modules that this engine cannot adapt: {', '.join(unknown)}"
            )
        if manifest.lora.dtype != manifest.dtype:
            raise EngineLoadError("the manifest's lora.dtype must be the engine's dtype, as in TensorRT-LLM")
    if manifest.prompt_table is not None and manifest.prompt_table.dtype != manifest.dtype:
        raise EngineLoadError("the manifest's prompt_table.dtype must be the engine's dtype, as in TensorRT-LLM")
    if manifest.guided_decoding:
        raise EngineLoadError("the manifest promises guided decoding, which the reference engine does not have")
