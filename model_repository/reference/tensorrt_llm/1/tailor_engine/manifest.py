"""
What this engine is: the manifest beside it, and the parameters of its config.pbtxt.

Decides their shapes and refuses what it does not know. Does not know Triton (parameters arrive as plain strings) nor
the checkpoint's own configuration (checkpoint.py).
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec
import torch

from .errors import EngineLoadError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class EngineKind(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: str
    version: str


class Base(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    architecture: str
    checkpoint: str
    fingerprint: str


class LoraAbility(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dtype: str
    max_rank: int
    modules: tuple[str, ...]
    dora: bool
    config_columns: int
    cache_bytes: int


class PromptTableAbility(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dtype: str
    max_rows: int


class KvReuse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    enabled: bool
    tokens_per_block: int


class Logits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    context: bool
    generation: bool


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One engine's abilities. Lengths are tokens, sizes are elements."""

    manifest_version: int
    engine: EngineKind
    base: Base
    dtype: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    max_batch_size: int
    max_input_tokens: int
    max_total_tokens: int
    lora: LoraAbility | None
    prompt_table: PromptTableAbility | None
    kv_reuse: KvReuse
    logits: Logits
    guided_decoding: bool

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values that one token holds over all layers."""
        return self.num_layers * 2 * self.num_kv_heads * self.head_size * self.torch_dtype.itemsize


class EngineOptions(msgspec.Struct, frozen=True):
    """
    The parameters of config.pbtxt that this engine reads, under TensorRT-LLM's names where it has one.

    kv_cache_tokens               KV budget in tokens (TensorRT-LLM: max_tokens_in_paged_kv_cache)
    max_queue_size                requests that may wait to be fetched
    max_queue_bytes               bytes of weights and tables that waiting requests may hold
    max_logits_bytes              largest context or generation logits of one response
    prefill_chunk_tokens          prompt tokens read per step while others decode
    max_num_tokens                prompt tokens read per step while nobody decodes
    cancellation_check_period_ms  how often each request's caller is asked whether it has left
    threads                       torch threads, 0 for what suits the model and the machine
    """

    kv_cache_tokens: int
    max_queue_size: int = 256
    max_queue_bytes: int = 268435456
    max_logits_bytes: int = 134217728
    prefill_chunk_tokens: int = 64
    max_num_tokens: int = 256
    cancellation_check_period_ms: int = 50
    threads: int = 0
    exclude_input_in_output: bool = False
    normalize_log_probs: bool = False


PARAMETER_NAMES = {"max_tokens_in_paged_kv_cache": "kv_cache_tokens"}


def read_manifest(engine_dir: Path) -> Manifest:
    """
    Read `manifest.json` of an engine directory.

    Raises:
        EngineLoadError: it is missing, malformed, or of a kind that this engine is not.
    """
    path = engine_dir / "manifest.json"
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except OSError as error:
        raise EngineLoadError(
            f"engine manifest {path} cannot be read ({error.strerror}); write it with python -m build.reference_engine"
        ) from error
    except msgspec.MsgspecError as error:
        raise EngineLoadError(f"engine manifest {path} does not fit: {error}") from error
    if manifest.engine.kind != "reference":
        raise EngineLoadError(
            f"engine manifest {path} is of a {manifest.engine.kind} engine; this is the reference one"
        )
    if manifest.dtype not in DTYPES:
        raise EngineLoadError(f"engine manifest {path} has dtype {manifest.dtype}; known are {', '.join(DTYPES)}")
    return manifest


def read_options(parameters: Mapping[str, str]) -> EngineOptions:
    """
    Read the parameters of config.pbtxt. Those that only TensorRT-LLM has are left alone.

    A value that is empty or still a `${placeholder}` counts as absent, as TensorRT-LLM's backend treats it.

    Raises:
        EngineLoadError: a value is not of its type, or below what works.
    """
    values = {
        PARAMETER_NAMES.get(name, name): value
        for name, value in parameters.items()
        if value and not value.startswith("${")
    }
    try:
        options = msgspec.convert(values, type=EngineOptions, strict=False)
    except msgspec.ValidationError as error:
        raise EngineLoadError(f"a parameter of config.pbtxt does not fit: {error}") from error
    for name in ("kv_cache_tokens", "prefill_chunk_tokens", "max_num_tokens", "max_queue_size"):
        if getattr(options, name) < 1:
            raise EngineLoadError(
                f"parameter {name} of config.pbtxt is {getattr(options, name)}; it must be at least 1"
            )
    return options
