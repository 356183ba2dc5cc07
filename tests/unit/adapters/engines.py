"""
The manifest of an engine that could serve the small bases of these tests. Imports nothing heavy.
"""

from pathlib import Path

import msgspec

from gateway.adapters.modules import MODULES
from gateway.domain.manifest import EngineManifest

VOCABULARY, HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, HEAD = 160, 48, 80, 3, 6, 2, 8


def manifest(directory: Path, architecture: str, fingerprint: str) -> EngineManifest:
    """An engine of these sizes that can do everything, in float32."""
    return msgspec.convert(
        {
            "manifest_version": 1,
            "engine": {"kind": "reference", "version": "1"},
            "base": {
                "name": directory.name,
                "architecture": architecture,
                "checkpoint": str(directory),
                "fingerprint": fingerprint,
            },
            "dtype": "float32",
            "vocab_size": VOCABULARY,
            "hidden_size": HIDDEN,
            "intermediate_size": INNER,
            "num_layers": LAYERS,
            "num_heads": HEADS,
            "num_kv_heads": KV_HEADS,
            "head_size": HEAD,
            "max_batch_size": 8,
            "max_input_tokens": 96,
            "max_total_tokens": 128,
            "lora": {
                "dtype": "float32",
                "max_rank": 64,
                "modules": [module.name for module in MODULES],
                "dora": True,
                "config_columns": 4,
                "cache_bytes": 1 << 26,
            },
            "prompt_table": {"dtype": "float32", "max_rows": 32},
            "kv_reuse": {"enabled": True, "tokens_per_block": 16},
            "logits": {"context": True, "generation": True},
            "guided_decoding": False,
        },
        EngineManifest,
    )
