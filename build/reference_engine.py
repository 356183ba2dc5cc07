"""
Write an engine directory for the reference engine.

    python -m build.reference_engine --checkpoint build/tiny --name tiny --output .cache/engines/tiny

Decides what a base model's engine may take (lengths, cache sizes, LoRA modules) and fills the config.pbtxt template.
Nothing is converted: the manifest names the checkpoint. Running it again changes nothing that has not changed. Does not
know the running engine, which checks all of it once more when it loads.
"""

import argparse
import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from hashlib import file_digest, sha256
from pathlib import Path

import msgspec

from gateway.domain.manifest import (
    Base,
    Dtype,
    EngineKind,
    EngineManifest,
    KvReuse,
    Logits,
    LoraAbility,
    PromptTableAbility,
)

TEMPLATE = Path(__file__).parent.parent / "model_repository" / "reference" / "tensorrt_llm"
MODULES = ("attn_q", "attn_k", "attn_v", "attn_dense", "mlp_h_to_4h", "mlp_4h_to_h", "mlp_gate")
MIB = 1 << 20
# Beside SmolLM2's weights (540 MB), torch and Triton this keeps the whole server below 2 GB.
KV_CACHE_BYTES = 384 * MIB


class EngineBuildError(Exception):
    """The engine directory cannot be written; the text is one sentence that says what to do."""


class Checkpoint(msgspec.Struct, frozen=True):
    """What of a Hugging Face config.json shapes the engine."""

    architectures: tuple[str, ...]
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """
    What one may choose. 0 means: what fits the base model.

    max_total_tokens         prompt and completion; 0: half of the positions, 512 to 2048
    max_input_tokens         prompt; 0: seven eighths of max_total_tokens
    kv_cache_tokens          0: 384 MiB worth, at most what max_batch_size requests can use
    lora_cache_bytes         bytes of adapters kept at once
    prefill_chunk_tokens     prompt tokens read per step while others decode
    threads                  torch threads; 0: one for a small model, else all cores but one
    """

    dtype: Dtype = Dtype.FLOAT32
    max_batch_size: int = 64
    max_total_tokens: int = 0
    max_input_tokens: int = 0
    kv_cache_tokens: int = 0
    tokens_per_block: int = 32
    kv_reuse: bool = True
    lora_cache_bytes: int = 256 * MIB
    max_lora_rank: int = 64
    prompt_table_rows: int = 128
    max_queue_size: int = 256
    prefill_chunk_tokens: int = 64
    max_num_tokens: int = 256
    decoupled: bool = True
    threads: int = 0


def write_engine(checkpoint: Path, name: str, output: Path, settings: EngineSettings) -> EngineManifest:
    """
    Write manifest, config.pbtxt and the engine's code to `output`, only touching files whose content changes.

    Raises:
        EngineBuildError: the checkpoint cannot be read, or the settings do not fit it.
    """
    manifest, kv_cache_tokens = _plan(checkpoint.resolve(), name, settings)
    model = output / "model_repository" / "tensorrt_llm"
    _write(output / "manifest.json", json.dumps(msgspec.to_builtins(manifest), indent=2) + "\n")
    values = _template_values(manifest, settings, kv_cache_tokens, output.resolve())
    _write(model / "config.pbtxt", fill_template((TEMPLATE / "config.pbtxt").read_text(), values))
    _copy_code(TEMPLATE / "1", model / "1")
    return manifest


def fill_template(template: str, values: Mapping[str, str]) -> str:
    """
    Replace every ${name}.

    Raises:
        EngineBuildError: a name has no value, or a value no name.
    """
    names = set(re.findall(r"\$\{(\w+)\}", template))
    if names != set(values):
        raise EngineBuildError(f"template and values differ in: {', '.join(sorted(names ^ set(values)))}")
    return re.sub(r"\$\{(\w+)\}", lambda match: values[match[1]], template)


def _plan(checkpoint: Path, name: str, settings: EngineSettings) -> tuple[EngineManifest, int]:
    try:
        config = msgspec.json.decode((checkpoint / "config.json").read_bytes(), type=Checkpoint)
    except OSError as error:
        raise EngineBuildError(
            f"{checkpoint} is no model directory ({error.strerror}: config.json); prepare the base model first"
        ) from error
    except msgspec.MsgspecError as error:
        raise EngineBuildError(f"{checkpoint / 'config.json'} does not fit: {error}") from error
    positions = config.max_position_embeddings
    total = settings.max_total_tokens or min(positions, 2048, max(512, positions // 2))
    if total > positions:
        raise EngineBuildError(f"--max-total-tokens {total} is more than the {positions} positions of {checkpoint}")
    kv_heads = config.num_key_value_heads or config.num_attention_heads
    head_size = config.head_dim or config.hidden_size // config.num_attention_heads
    token_bytes = config.num_hidden_layers * 2 * kv_heads * head_size * settings.dtype.itemsize
    fitting = min(KV_CACHE_BYTES // token_bytes, settings.max_batch_size * total)
    block = settings.tokens_per_block
    kv_cache_tokens = (settings.kv_cache_tokens or max(fitting, total + block)) // block * block
    if kv_cache_tokens < total:
        raise EngineBuildError(
            f"--kv-cache-tokens {settings.kv_cache_tokens} is too little for one request of {total} tokens in blocks "
            f"of {block}"
        )
    manifest = EngineManifest(
        manifest_version=1,
        engine=EngineKind(kind="reference", version="1"),
        base=Base(
            name=name,
            architecture=config.architectures[0],
            checkpoint=str(checkpoint),
            fingerprint=fingerprint(checkpoint),
        ),
        dtype=settings.dtype,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        num_kv_heads=kv_heads,
        head_size=head_size,
        max_batch_size=settings.max_batch_size,
        max_input_tokens=settings.max_input_tokens or total * 7 // 8,
        max_total_tokens=total,
        lora=LoraAbility(
            dtype=settings.dtype,
            max_rank=settings.max_lora_rank,
            modules=MODULES,
            dora=True,
            config_columns=4,
            cache_bytes=settings.lora_cache_bytes,
        ),
        prompt_table=PromptTableAbility(dtype=settings.dtype, max_rows=settings.prompt_table_rows),
        kv_reuse=KvReuse(enabled=settings.kv_reuse, tokens_per_block=settings.tokens_per_block),
        logits=Logits(context=True, generation=True),
        guided_decoding=False,
    )
    return manifest, kv_cache_tokens


def fingerprint(checkpoint: Path) -> str:
    """`sha256:` and the digest of model.safetensors; of a sharded checkpoint, that of its shards' digests in order."""
    shards = sorted(checkpoint.glob("model*.safetensors"))
    if not shards:
        raise EngineBuildError(f"{checkpoint} has no model.safetensors; prepare the base model first")
    digests = []
    for shard in shards:
        with shard.open("rb") as file:
            digests.append(file_digest(file, "sha256").hexdigest())
    return "sha256:" + (digests[0] if len(digests) == 1 else sha256("".join(digests).encode()).hexdigest())


def _template_values(
    manifest: EngineManifest, settings: EngineSettings, kv_cache_tokens: int, output: Path
) -> dict[str, str]:
    element = f"TYPE_{settings.dtype.triton}"
    return {
        "triton_backend": "python",
        "triton_max_batch_size": str(manifest.max_batch_size),
        "decoupled_mode": "true" if settings.decoupled else "false",
        "max_queue_delay_microseconds": "0",
        "max_queue_size": str(settings.max_queue_size),
        "batching_strategy": "inflight_fused_batching",
        "engine_dir": str(output),
        "encoder_input_features_data_type": element,
        "logits_datatype": "TYPE_FP32",
        "prompt_embedding_table_data_type": element,
        "lora_weights_data_type": element,
        "max_beam_width": "1",
        "max_tokens_in_paged_kv_cache": str(kv_cache_tokens),
        "exclude_input_in_output": "false",
        "normalize_log_probs": "false",
        "cancellation_check_period_ms": "50",
        "prefill_chunk_tokens": str(settings.prefill_chunk_tokens),
        "max_num_tokens": str(settings.max_num_tokens),
        "max_queue_bytes": str(256 * MIB),
        "max_logits_bytes": str(128 * MIB),
        "threads": str(settings.threads),
    }


def _copy_code(source: Path, target: Path) -> None:
    wanted = {path.relative_to(source) for path in source.rglob("*.py")}
    if target.exists():
        for path in target.rglob("*.py"):
            if path.relative_to(target) not in wanted:
                path.unlink()
    for path in wanted:
        _write(target / path, (source / path).read_text())


def _write(path: Path, text: str) -> None:
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_text(text)
    shutil.move(scratch, path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m build.reference_engine", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="Hugging Face directory of the base model")
    parser.add_argument("--name", required=True, help="the base model's name")
    parser.add_argument("--output", type=Path, required=True, help="the engine directory to write")
    defaults = EngineSettings()
    parser.add_argument("--dtype", type=Dtype, choices=list(Dtype), default=defaults.dtype)
    for field in fields(EngineSettings):
        flag, default = "--" + field.name.replace("_", "-"), getattr(defaults, field.name)
        if isinstance(default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=default)
        elif isinstance(default, int):
            parser.add_argument(flag, type=int, default=default)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parsed = vars(_parser().parse_args(arguments))
    checkpoint, name, output = parsed.pop("checkpoint"), parsed.pop("name"), parsed.pop("output")
    try:
        manifest = write_engine(checkpoint, name, output, EngineSettings(**parsed))
    except EngineBuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{output}: {manifest.base.architecture}, {manifest.max_total_tokens} tokens a request")
    return 0


if __name__ == "__main__":
    sys.exit(main())
