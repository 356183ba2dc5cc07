"""
The use case: admit a request, resolve its profile, render, route, attempt, stream, settle.

Decides the order of these steps and that nothing reaches the caller before the first content. Does not know HTTP, gRPC,
Redis or files; everything outside comes through ports.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from gateway.domain.errors import (
    BackendFailed,
    CallerError,
    ContextLengthExceeded,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    TailorError,
)
from gateway.domain.event import Event, Finished, Usage
from gateway.domain.failover import attempts
from gateway.domain.job import Endpoint, Job, Target
from gateway.domain.profile import ModelName, Profile
from gateway.domain.record import RequestRecord
from gateway.domain.request import Chat, GenerationRequest, Text, TokenIds
from gateway.domain.routing import EndpointSnapshot, route
from gateway.ports import Backend, Observer, ProfileCatalog, TextCodec

# Tokenising costs about a microsecond for each token; a text this long is worth the trip to a thread.
_LONG_TEXT_CHARACTERS = 8192


@dataclass(frozen=True, slots=True)
class GenerateLimits:
    """`concurrent_requests`: in one process. `default_max_tokens`: where none is asked for; None means what fits."""

    concurrent_requests: int = 512
    default_max_tokens: int | None = None


class Generation:
    """
    One request's answers under way: the first content is here, and iterating gives this and the rest.

    Iterating raises BackendFailed where the answer is cut.
    """

    def __init__(self, job: Job, target: Target, first: list[Event], rest: AsyncGenerator[list[Event], None]) -> None:
        self.job = job
        self.target = target
        self._tokens = [0] * job.request.n
        self._first = first
        self._rest = rest

    async def __aiter__(self) -> AsyncIterator[list[Event]]:
        self._count(self._first)
        yield self._first
        async for events in self._rest:
            self._count(events)
            yield events

    async def aclose(self) -> None:
        """End the engine's work, if it still runs."""
        await self._rest.aclose()

    @property
    def usage(self) -> Usage:
        """What it has cost so far; final once iteration has ended."""
        return Usage(self.job.prompt_tokens, self.job.virtual_tokens, sum(self._tokens))

    def _count(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Finished):
                self._tokens[event.index] = event.completion_tokens
            else:
                self._tokens[event.index] += event.tokens


class Generate:
    """The use case, wired to its ports. One for each process."""

    def __init__(
        self,
        catalog: ProfileCatalog,
        codecs: Mapping[str, TextCodec],
        endpoints: Sequence[Endpoint],
        backend: Backend,
        observer: Observer,
        limits: GenerateLimits,
    ) -> None:
        self._catalog = catalog
        self._codecs = codecs
        self._endpoints = endpoints
        self._backend = backend
        self._observer = observer
        self._limits = limits
        self._running = 0

    @asynccontextmanager
    async def __call__(self, request: GenerationRequest, record: RequestRecord) -> AsyncIterator[Generation]:
        """
        A generation whose first content has arrived. However the block is left, the engine's work ends with it and the
        record is handed to the observer.

        Raises:
            CallerError: the request cannot be served as it is.
            Overloaded: this process is full.
            BackendFailed: no target answered.
        """
        clock = time.monotonic
        record.started_s, record.model, record.tenant = clock(), request.model, request.tenant.name
        self._observer.started(record)
        if self._running >= self._limits.concurrent_requests:
            record.error, record.ended_s = "Overloaded", clock()
            self._observer.finished(record)
            raise Overloaded(f"this gateway process serves {self._running} requests already, its limit")
        self._running += 1
        try:
            job = await self._admit(request, record)
            record.profile_version = job.profile.version
            record.outcome = "failed"
            generation = await self._attempt(job, record)
            try:
                record.first_content_s = clock()
                yield generation
                record.outcome = "finished"
            finally:
                record.usage = generation.usage
                await generation.aclose()
        except TailorError as error:
            record.outcome = "refused" if isinstance(error, CallerError) else "failed"
            record.error = type(error).__name__
            raise
        except (asyncio.CancelledError, GeneratorExit):
            if record.outcome != "finished":
                record.outcome = "disconnected"
            raise
        except Exception as error:
            record.outcome, record.error = "failed", type(error).__name__
            raise
        finally:
            self._running -= 1
            record.ended_s = clock()
            self._observer.finished(record)

    async def _admit(self, request: GenerationRequest, record: RequestRecord) -> Job:
        name = ModelName.parse(request.model)
        profile = None if name is None else self._catalog.resolve(request.tenant, name)
        endpoints = [] if profile is None else [e for e in self._endpoints if e.manifest.base.name == profile.base]
        if profile is None or not endpoints:
            raise ModelNotFound(f"The model `{request.model[:256]}` does not exist or you do not have access to it.")
        most_answers = min(endpoint.manifest.max_batch_size for endpoint in endpoints)
        if request.n > most_answers:
            raise InvalidRequest(f"this model gives at most {most_answers} answers at once", "n")
        prompt_ids = await self._encode(request, profile)
        job = Job(record.request_id, request, profile, prompt_ids, 0)
        # Endpoints of one base may be built differently; what the smallest can take is what every one can.
        max_tokens = self._fitting_tokens(
            job,
            max_input=min(endpoint.manifest.max_input_tokens for endpoint in endpoints),
            max_total=min(endpoint.manifest.max_total_tokens for endpoint in endpoints),
        )
        self._check_ids(request, prompt_ids, endpoints[0].manifest.vocab_size)
        return Job(record.request_id, request, profile, prompt_ids, max_tokens)

    async def _encode(self, request: GenerationRequest, profile: Profile) -> list[int]:
        codec = self._codecs[profile.base]
        match request.prompt:
            case Chat(messages):
                if sum(len(message.content) for message in messages) > _LONG_TEXT_CHARACTERS:
                    return await asyncio.to_thread(codec.encode_chat, messages)
                return codec.encode_chat(messages)
            case Text(text):
                if len(text) > _LONG_TEXT_CHARACTERS:
                    return await asyncio.to_thread(codec.encode_text, text)
                return codec.encode_text(text)
            case TokenIds(ids):
                return list(ids)

    def _fitting_tokens(self, job: Job, max_input: int, max_total: int) -> int:
        request, prompt = job.request, job.prompt_tokens
        field = "messages" if isinstance(request.prompt, Chat) else "prompt"
        virtual = f", {job.virtual_tokens} of them the model's own virtual tokens" if job.virtual_tokens else ""
        if prompt > max_input or prompt >= max_total:
            raise ContextLengthExceeded(
                f"This model reads at most {min(max_input, max_total - 1)} tokens of prompt; "
                f"yours has {prompt}{virtual}. Shorten it.",
                field,
            )
        if request.max_tokens is None:
            return min(max_total - prompt, self._limits.default_max_tokens or max_total)
        if prompt + request.max_tokens > max_total:
            raise ContextLengthExceeded(
                f"This model's context is {max_total} tokens. You asked for {prompt + request.max_tokens}: {prompt} in "
                f"the prompt{virtual} and {request.max_tokens} in `{request.max_tokens_param}`. Shorten one of them.",
                request.max_tokens_param,
            )
        return request.max_tokens

    @staticmethod
    def _check_ids(request: GenerationRequest, prompt_ids: Sequence[int], vocab_size: int) -> None:
        # Ids from the vocabulary's end on address a profile's virtual tokens; a caller may name none of them.
        if max(prompt_ids, default=0) >= vocab_size or min(prompt_ids, default=0) < 0:
            raise InvalidRequest(f"token ids must be from 0 to {vocab_size - 1}", "prompt", "token_out_of_range")
        if not prompt_ids:
            raise InvalidRequest("the prompt is empty; it must have at least one token", "prompt")
        for token, _ in request.sampling.logit_bias:
            if not 0 <= token < vocab_size:
                raise InvalidRequest(
                    f"logit_bias names token {token}; ids are from 0 to {vocab_size - 1}",
                    "logit_bias",
                    "token_out_of_range",
                )

    async def _attempt(self, job: Job, record: RequestRecord) -> Generation:
        plan = attempts(route(job.profile, self._snapshots(job.profile)))
        target = next(plan)
        while True:
            record.endpoint, record.rung, record.sent_s = target.endpoint.name, target.rung, time.monotonic()
            events = self._backend.generate(job, target)
            try:
                return Generation(job, target, await anext(events), events)
            except BackendFailed as failure:
                await events.aclose()
                target = plan.send(failure)
            except BaseException:
                await events.aclose()
                raise

    def _snapshots(self, profile: Profile) -> list[EndpointSnapshot]:
        backend, adapter = self._backend, profile.lora
        return [
            EndpointSnapshot(
                endpoint,
                ready=backend.ready(endpoint),
                in_flight=backend.in_flight(endpoint),
                resident=adapter is not None and backend.resident(endpoint, adapter),
            )
            for endpoint in self._endpoints
        ]
