"""
Values that the tests of several layers need, small and complete.
"""

from dataclasses import replace
from pathlib import Path

import msgspec

from gateway.domain.adapter import LoraAdapter, PromptTable
from gateway.domain.job import Endpoint, Job
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
from gateway.domain.profile import Profile
from gateway.domain.request import Chat, GenerationRequest, Message, SamplingParams
from gateway.domain.tenant import Tenant

ACME = Tenant("acme", frozenset({"tiny"}))
GLOBEX = Tenant("globex", frozenset({"tiny"}))

MANIFEST = EngineManifest(
    manifest_version=1,
    engine=EngineKind(kind="reference", version="1"),
    base=Base(name="tiny", architecture="LlamaForCausalLM", checkpoint="build/tiny", fingerprint="sha256:00"),
    dtype=Dtype.FLOAT32,
    vocab_size=908,
    hidden_size=128,
    intermediate_size=512,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    head_size=32,
    max_batch_size=64,
    max_input_tokens=448,
    max_total_tokens=512,
    lora=LoraAbility(
        dtype=Dtype.FLOAT32, max_rank=64, modules=("attn_q",), dora=True, config_columns=4, cache_bytes=2**28
    ),
    prompt_table=PromptTableAbility(dtype=Dtype.FLOAT32, max_rows=128),
    kv_reuse=KvReuse(enabled=True, tokens_per_block=32),
    logits=Logits(context=True, generation=True),
    guided_decoding=False,
)
ENDPOINT = Endpoint("triton-1", "127.0.0.1:1", MANIFEST)
OTHER = Endpoint("triton-2", "127.0.0.1:2", MANIFEST)
BASE = Profile(tenant=None, name="tiny", version=0, digest="", base="tiny")
LORA = LoraAdapter(77, 3, 40, 4, Dtype.FLOAT32, Path("weights.bin"), Path("config.bin"))
PROMPT = PromptTable(99, 2, 128, Dtype.FLOAT32, Path("table.bin"))
TUNED = Profile(
    tenant="acme", name="support-bot", version=3, digest="sha256:" + "ab" * 32, base="tiny", lora=LORA, created=1
)


def manifest(**changes: object) -> EngineManifest:
    return msgspec.structs.replace(MANIFEST, **changes)


def request(prompt: str = "hi", **changes: object) -> GenerationRequest:
    sampling = changes.pop("sampling", SamplingParams())
    made = GenerationRequest(tenant=ACME, model="support-bot", prompt=Chat((Message("user", prompt),)))
    return replace(made, sampling=sampling, **changes)


def job(
    asked: GenerationRequest | None = None,
    profile: Profile = TUNED,
    *,
    prompt_ids: list[int] | None = None,
    max_tokens: int = 16,
) -> Job:
    return Job("req_1", asked or request(), profile, [1, 2, 3] if prompt_ids is None else prompt_ids, max_tokens)
