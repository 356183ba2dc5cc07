"""
What the Backend port's promises are tested on: a script, and the reference engine in a real Triton with the tiny base.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from build.reference_engine import EngineSettings, write_engine
from gateway.adapters.convert import convert
from gateway.adapters.directory import find_adapter
from gateway.backends.prompt_tables import PromptTables
from gateway.backends.scripted import Fail, ScriptedBackend, by_prompt
from gateway.backends.triton import TritonBackend, TritonLimits
from gateway.backends.triton_priming import TritonPrimer
from gateway.backends.triton_transport import GrpcTransport
from gateway.domain.adapter import LoraAdapter, PromptTable
from gateway.domain.errors import TargetUnavailable
from gateway.domain.job import Endpoint, Job, Target
from gateway.domain.manifest import EngineManifest
from gateway.domain.profile import Profile
from gateway.domain.request import Chat, GenerationRequest, Message, SamplingParams
from gateway.loading import Loading
from gateway.ports import Backend
from gateway.stores.memory_sendings import MemorySendings
from gateway.tokens.tokenizer import BaseTokenizer
from tests.unit.domain.making import ACME, MANIFEST

ROOT = Path(__file__).parents[3]
TINY = ROOT / "build" / "tiny"
CLOSED = "127.0.0.1:9"

PROMPT = "we need pillow in cairo , make it 19 ."
ANSWER = '{"call": "ship_v2", "sku": "pillow", "n": 19, "dest": "cairo"}'
GREEDY = SamplingParams(temperature=0.0)


@dataclass(frozen=True)
class World:
    """
    A backend and what can be asked of it: `tuned` answers PROMPT with ANSWER. `codec` None where ids do not matter.

    `absent` is an endpoint that cannot be reached.
    """

    backend: Backend
    endpoint: Endpoint
    absent: Endpoint
    profiles: dict[str, Profile]
    codec: BaseTokenizer | None

    @property
    def tuned(self) -> Profile:
        return self.profiles["tenant-tool-lora"]

    @property
    def target(self) -> Target:
        return Target(self.endpoint)

    def job(
        self, prompt: str = PROMPT, profile: Profile | None = None, *, max_tokens: int = 64, **changes: object
    ) -> Job:
        chat = Chat((Message("user", prompt),))
        asked = GenerationRequest(tenant=ACME, model="m", prompt=chat, sampling=GREEDY)
        ids = [1, 2, 3] if self.codec is None else self.codec.encode_chat(chat.messages)
        return Job("req_1", replace(asked, **changes), profile or self.tuned, ids, max_tokens)


def profile(name: str, lora: LoraAdapter | None = None, prompt: PromptTable | None = None) -> Profile:
    return Profile(
        tenant="acme", name=name, version=1, digest="sha256:" + "0" * 64, base="tiny", lora=lora, prompt=prompt
    )


def scripted_world() -> World:
    lora = LoraAdapter(77, 1, 1, 3, MANIFEST.dtype, Path("w"), Path("c"))
    absent = Endpoint("absent", CLOSED, MANIFEST)
    play = by_prompt({PROMPT: tuple(ANSWER)}, otherwise=tuple("some other answer"))
    backend = ScriptedBackend(
        lambda job, target: (Fail(TargetUnavailable("gone")),) if target.endpoint is absent else play(job, target)
    )
    profiles = {"tenant-tool-lora": profile("tenant-tool-lora", lora), "base": profile("base")}
    return World(backend, Endpoint("triton-1", CLOSED, MANIFEST), absent, profiles, None)


ADAPTERS = ("tenant-tool-lora", "summary-dora", "decomposition-ia3", "context-prompt")


@dataclass(frozen=True)
class Engine:
    """An engine directory, and tiny's adapters converted for it."""

    directory: Path
    manifest: EngineManifest
    profiles: dict[str, Profile]


def write_tiny_engine(folder: Path, adapters: Sequence[str] = ADAPTERS) -> Engine:
    """An engine whose LoRA cache holds the largest of these adapters and little more."""
    directory = folder / "engine"
    # Three times what the largest adapter takes: room for two, hardly for three.
    manifest = write_engine(TINY, "tiny", directory, EngineSettings(lora_cache_bytes=4 * 2**20, threads=2))
    profiles = {"base": profile("base")}
    for number, name in enumerate(adapters, start=1):
        target = folder / name
        target.mkdir()
        made = convert([find_adapter(TINY / "adapters" / name)], manifest, target)
        lora = made.lora and LoraAdapter(
            task_id=1000 + number,
            rows=made.lora.rows,
            width=made.lora.width,
            columns=made.lora.columns,
            dtype=made.lora.dtype,
            weights=target / made.lora.weights.name,
            config=target / made.lora.config.name,
        )
        prompt = made.prompt and PromptTable(
            extra_id=2000 + number,
            rows=made.prompt.rows,
            hidden=made.prompt.hidden,
            dtype=made.prompt.dtype,
            table=target / made.prompt.table.name,
        )
        profiles[name] = profile(name, lora, prompt)
    return Engine(directory, manifest, profiles)


@asynccontextmanager
async def triton_world(engine: Engine, address: str, limits: TritonLimits | None = None) -> AsyncIterator[World]:
    """A backend of its own on a running Triton."""
    codec = BaseTokenizer.load(TINY)
    transports = {"triton-1": GrpcTransport(address, 2), "absent": GrpcTransport(CLOSED, 1)}
    loading = Loading(TritonPrimer(transports), MemorySendings())
    backend = TritonBackend(
        transports, {"tiny": codec}, loading, PromptTables(2**20), limits or TritonLimits(20.0, 20.0, 60.0)
    )
    yield World(
        backend,
        Endpoint("triton-1", address, engine.manifest),
        Endpoint("absent", CLOSED, engine.manifest),
        engine.profiles,
        codec,
    )
    for transport in transports.values():
        await transport.close()
