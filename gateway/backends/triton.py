"""
The backend that asks TensorRT-LLM's model in Triton, or the reference engine in its place.

Decides how a job becomes a stream of events: which tensors are sent, when an adapter has to be loaded first, and when
an answer that makes no progress is given up. Does not choose endpoints, and does not read HTTP.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from gateway.backends.prompt_tables import PromptTables
from gateway.backends.residency import Residency
from gateway.backends.triton_tensors import (
    MODEL,
    NO_LORA,
    NO_VIRTUAL_TOKENS,
    Fragment,
    TokenChunk,
    Vocabulary,
    infer_request,
    lora_by_id,
    read_response,
)
from gateway.backends.triton_transport import InferStream, TritonTransport
from gateway.domain.adapter import LoraAdapter
from gateway.domain.answer import Answer
from gateway.domain.errors import (
    AdapterCacheFull,
    AdapterNotLoaded,
    AnswerIncomplete,
    BackendFailed,
    DeadlineExceeded,
    EngineQueueFull,
)
from gateway.domain.event import Event
from gateway.domain.job import Endpoint, Job, Target
from gateway.ports import AdapterLoader, TextCodec

_HEALTH_PERIOD_S = 2.0


@dataclass(frozen=True, slots=True)
class TritonLimits:
    """
    How long an engine may take. All seconds.

    `first_token_s` covers loading an adapter and waiting in the engine's queue. `gap_s` is the longest silence between
    tokens, `total_s` the longest answer.
    """

    first_token_s: float = 60.0
    gap_s: float = 30.0
    total_s: float = 600.0


class TritonBackend:
    """A Backend over any number of Triton endpoints, one transport each."""

    def __init__(
        self,
        transports: Mapping[str, TritonTransport],
        codecs: Mapping[str, TextCodec],
        loader: AdapterLoader,
        tables: PromptTables,
        limits: TritonLimits,
    ) -> None:
        self._transports = transports
        self._codecs = codecs
        self._loader = loader
        self._tables = tables
        self._limits = limits
        self._residency = Residency(most_claims=65536)
        self._in_flight = dict.fromkeys(transports, 0)
        self._ready = dict.fromkeys(transports, False)
        self._waiting: dict[InferStream, float] = {}

    def in_flight(self, endpoint: Endpoint) -> int:
        return self._in_flight[endpoint.name]

    def resident(self, endpoint: Endpoint, adapter: LoraAdapter) -> bool:
        return self._residency.claim(endpoint, adapter) > 0

    def ready(self, endpoint: Endpoint) -> bool:
        return self._ready[endpoint.name]

    async def watch_health(self) -> None:
        """Ask every endpoint, again and again, whether its model is loaded. Runs until cancelled."""
        while True:
            names = list(self._transports)
            answers = await asyncio.gather(*(self._transports[name].ready(MODEL, timeout_s=2.0) for name in names))
            self._ready.update(zip(names, answers, strict=True))
            # Until the first engine is there, look often: somebody is waiting at a start.
            await asyncio.sleep(_HEALTH_PERIOD_S if any(answers) else 0.1)

    async def watch_progress(self) -> None:
        """Cancel streams that wait longer than they may. One look for all, instead of a timer for each token."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(0.5)
            now = loop.time()
            for stream in [stream for stream, until in self._waiting.items() if until < now]:
                stream.cancel()

    async def generate(self, job: Job, target: Target) -> AsyncGenerator[list[Event], None]:
        codec = self._codecs[job.profile.base]
        request = job.request
        eos_ids = frozenset(codec.eos_ids)
        answers = [
            Answer(index, codec.detokenizer(), request.stop, eos_ids, job.max_tokens) for index in range(request.n)
        ]
        with self._counted(target.endpoint):
            stream, chunks = await self._open(job, target.endpoint)
            try:
                while True:
                    events: list[Event] = []
                    final = False
                    for chunk in chunks:
                        events += answers[chunk.sequence].feed(chunk.ids, chunk.logprobs)
                        final |= chunk.final
                    if final:
                        for answer in answers:
                            events += answer.feed((), final=True)
                    if events:
                        yield events
                    if final:
                        await stream.finish()
                        return
                    if all(answer.finished for answer in answers):
                        return
                    chunks = await self._read(stream, self._limits.gap_s)
                    if not chunks:
                        raise AnswerIncomplete("the engine's stream ended before the answer did")
            finally:
                stream.cancel()

    @contextmanager
    def _counted(self, endpoint: Endpoint) -> Iterator[None]:
        self._in_flight[endpoint.name] += 1
        try:
            yield
        finally:
            self._in_flight[endpoint.name] -= 1

    async def _open(self, job: Job, endpoint: Endpoint) -> tuple[InferStream, list[TokenChunk]]:
        """
        A stream that has given its first tokens.

        A miss is no failure: the adapter is loaded again. Where the engine has no room for it, or evicts it before the
        request is there, this waits and tries until the first token is due: nothing has reached the caller yet.
        """
        loop = asyncio.get_running_loop()
        due = loop.time() + self._limits.first_token_s
        adapter = job.profile.lora
        missed, pause = 0, 0.02
        lacking: BackendFailed | None = None
        try:
            # Connecting and loading have patience of their own, and more of it than this request.
            async with asyncio.timeout_at(due):
                while True:
                    try:
                        if adapter is None:
                            return await self._first(job, endpoint, NO_LORA, due)
                        sending = self._residency.claim(endpoint, adapter)
                        if sending <= missed:
                            sending = await self._loader.load(endpoint, adapter, missed)
                            self._residency.learned(endpoint, adapter, sending)
                        return await self._first(job, endpoint, lora_by_id(adapter.task_id), due)
                    except AdapterNotLoaded as failure:
                        if adapter is None:
                            raise
                        lacking, missed = failure, max(missed, sending)
                        self._residency.missed(endpoint, adapter, sending)
                    except (AdapterCacheFull, EngineQueueFull) as failure:
                        lacking = failure
                        await asyncio.sleep(pause * (0.5 + secrets.randbelow(1000) / 1000))
                        pause = min(pause * 2, 0.5)
        except (TimeoutError, DeadlineExceeded):
            # What was lacking says more than that the time is up.
            late = DeadlineExceeded(f"the engine gave no token within {self._limits.first_token_s:g} s")
            raise lacking or late from None

    async def _first(
        self, job: Job, endpoint: Endpoint, lora: Fragment, due: float
    ) -> tuple[InferStream, list[TokenChunk]]:
        codec, prompt = self._codecs[job.profile.base], job.profile.prompt
        vocabulary = Vocabulary(endpoint.manifest.vocab_size, codec.eos_ids)
        virtual = NO_VIRTUAL_TOKENS if prompt is None else self._tables.get(prompt, vocabulary.size)
        # A letter first: older releases read an id's leading digits as a number.
        engine_id = "r" + secrets.token_hex(16)
        message = infer_request(job, engine_id, vocabulary, virtual, lora)
        stream = await self._transports[endpoint.name].infer(message, self._limits.total_s)
        try:
            chunks = await self._read(stream, due - asyncio.get_running_loop().time())
            if not chunks:
                raise AnswerIncomplete("the engine's stream ended without an answer")
        except BaseException:
            stream.cancel()
            raise
        return stream, chunks

    async def _read(self, stream: InferStream, patience_s: float) -> list[TokenChunk]:
        until = asyncio.get_running_loop().time() + patience_s
        self._waiting[stream] = until
        try:
            return [read_response(response) for response in await stream.read()]
        except asyncio.CancelledError:
            # The watch cancels a call, and so does whoever cancels this task: only the clock tells which it was.
            if asyncio.get_running_loop().time() >= until and not _cancelled():
                raise DeadlineExceeded(f"the engine gave no token for {patience_s:.0f} s") from None
            raise
        finally:
            self._waiting.pop(stream, None)


def _cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
