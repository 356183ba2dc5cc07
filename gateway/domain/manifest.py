"""
What an engine can take: the manifest that `build/` writes beside it.

Decides the shape of that file and which derived tensors two engines may share. Does not know how an engine is built,
nor what any one adapter needs (gateway/adapters asks this file).
"""

import hashlib
from enum import StrEnum
from pathlib import Path

import msgspec


class Dtype(StrEnum):
    """An element type as manifests spell it; `triton` gives the name that travels on the wire."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"

    @property
    def triton(self) -> str:
        return {"float32": "FP32", "float16": "FP16", "bfloat16": "BF16"}[self.value]

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return 4 if self is Dtype.FLOAT32 else 2


class EngineKind(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kind: str
    version: str


class Base(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    architecture: str
    checkpoint: str
    fingerprint: str


class LoraAbility(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Weights must have `dtype`; ranks end at `max_rank`; `cache_bytes` bounds what the engine keeps at once."""

    dtype: Dtype
    max_rank: int
    modules: tuple[str, ...]
    dora: bool
    config_columns: int
    cache_bytes: int


class PromptTableAbility(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table must have `dtype` and at most `max_rows` rows."""

    dtype: Dtype
    max_rows: int


class KvReuse(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    enabled: bool
    tokens_per_block: int


class Logits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    context: bool
    generation: bool


class EngineManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One engine's abilities. Lengths are tokens, sizes elements. Source: design, decision 4."""

    manifest_version: int
    engine: EngineKind
    base: Base
    dtype: Dtype
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
    def tensor_key(self) -> str:
        """
        Names the engines that derived tensors are valid for.

        Only what shapes those tensors goes in: two engines that differ in batch size share them; another base, element
        type, set of modules or kind of engine does not.
        """
        # The cache's size shapes no tensor, and an engine rebuilt with another must find the same adapters.
        lora = msgspec.structs.replace(self.lora, cache_bytes=0) if self.lora else None
        parts = (self.base.fingerprint, self.engine.kind, self.dtype, lora, self.prompt_table)
        return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]


class ManifestError(ValueError):
    """The manifest cannot be read; the text says which file, which key, and what was expected."""


def load_manifest(path: Path) -> EngineManifest:
    """
    Read an engine's manifest.

    Raises:
        ManifestError: the file is missing, or a key is missing, unknown or of the wrong type.
    """
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=EngineManifest)
    except OSError as error:
        raise ManifestError(
            f"engine manifest {path} cannot be read ({error.strerror}); build the engine first"
        ) from error
    except msgspec.MsgspecError as error:
        raise ManifestError(f"engine manifest {path} does not fit: {error}") from error
    if manifest.manifest_version != 1:
        raise ManifestError(f"engine manifest {path} has version {manifest.manifest_version}; this gateway reads 1")
    return manifest
