"""
The routes that generate text: POST /v1/chat/completions and POST /v1/completions.

Plain ASGI endpoints: one pass from bytes to a request, nothing wraps `send`, and what arrives together leaves in one
write. Decides when headers leave: with the first content, or with the first heartbeat of a long wait.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from gateway.domain.errors import TailorError
from gateway.domain.event import Event
from gateway.domain.record import RequestRecord
from gateway.domain.request import GenerationRequest
from gateway.domain.tenant import Tenant
from gateway.generate import Generate, Generation
from gateway.transport.asgi import CallerLeft, left_notice, read_body, request_id, send_problem, send_whole
from gateway.transport.auth import KeyRing
from gateway.transport.problems import INTERNAL, problem, problem_body
from gateway.transport.schemas import read_chat, read_completion
from gateway.transport.sse import (
    DONE,
    HEARTBEAT,
    STREAM_HEADERS,
    Identity,
    Operation,
    Renderer,
    renderer,
    route_label,
    usage_object,
)

_log = logging.getLogger(__name__)
_PREFIX = {"chat": "chatcmpl-", "completion": "cmpl-"}


@dataclass(frozen=True, slots=True)
class TextLimits:
    body_bytes: int
    body_s: float
    heartbeat_s: float


class TextEndpoint:
    """One operation as an ASGI application."""

    def __init__(self, operation: Operation, generate: Generate, keys: KeyRing[Tenant], limits: TextLimits) -> None:
        self._operation = operation
        self._generate = generate
        self._keys = keys
        self._limits = limits
        self._read = read_chat if operation == "chat" else read_completion

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        identifier = request_id(scope)
        try:
            tenant = self._keys.holder(scope["headers"])
            body = await read_body(scope, receive, self._limits.body_bytes, self._limits.body_s)
            parsed = self._read(body)
            answer = _Answer(self._operation, identifier, parsed.include_usage(), parsed.request(tenant), send)
            record = RequestRecord(
                request_id=identifier, tenant=tenant.name, operation=self._operation, stream=bool(parsed.stream)
            )
            async with left_notice(receive):
                generation = self._generate(answer.request, record)
                if parsed.stream:
                    await answer.stream(generation, self._limits.heartbeat_s)
                else:
                    await answer.whole(generation)
        except CallerLeft:
            return
        except TailorError as error:
            _log.info("request %s: %s: %s", identifier, type(error).__name__, error.message)
            await send_problem(send, problem(error), identifier)
        except Exception:
            _log.exception("request %s failed", identifier)
            await send_problem(send, INTERNAL, identifier)


class _Answer:
    """One request on its way back to the caller."""

    def __init__(
        self, operation: Operation, identifier: str, include_usage: bool, request: GenerationRequest, send: Send
    ) -> None:
        self.request = request
        self._operation: Operation = operation
        self._identifier = identifier
        self._identity = (b"x-request-id", identifier.encode())
        self._include_usage = include_usage
        self._send = send
        self._started = False

    async def whole(self, opening: AbstractAsyncContextManager[Generation]) -> None:
        events: list[Event] = []
        async with opening as generation:
            async for batch in generation:
                events += batch
            route = route_label(generation.job, generation.target)
            usage = usage_object(generation.usage, route)
            body = self._renderer(generation).whole(events, self.request.n, usage)
        headers = [(b"content-type", b"application/json"), self._identity, (b"x-tailor-route", route.encode())]
        await send_whole(self._send, 200, headers, body)

    async def stream(self, opening: AbstractAsyncContextManager[Generation], heartbeat_s: float) -> None:
        try:
            generation = await self._first_content(opening, heartbeat_s)
            # Left before the last chunk is written: whoever has read it finds the request settled.
            async with AsyncExitStack() as leaving:
                leaving.push_async_exit(opening)
                last = await self._relay(generation)
        except Exception as error:
            if not self._started:
                raise
            # The status has left already: all that remains is to say it in the stream.
            _log.warning(
                "request %s broke off: %s: %s",
                self._identifier,
                type(error).__name__,
                error,
                exc_info=None if isinstance(error, TailorError) else error,
            )
            return await self._break_off(error)
        await self._write(last + DONE, more=False)

    async def _first_content(self, opening: AbstractAsyncContextManager[Generation], heartbeat_s: float) -> Generation:
        """Enter the generation; headers leave meanwhile if that takes longer than a heartbeat."""
        entering = asyncio.ensure_future(opening.__aenter__())
        try:
            while not (await asyncio.wait((entering,), timeout=heartbeat_s))[0]:
                if not self._started:
                    await self._start([])
                await self._write(HEARTBEAT)
        except BaseException as error:
            entering.cancel()
            await asyncio.gather(entering, return_exceptions=True)
            if not entering.cancelled() and entering.exception() is None:
                await opening.__aexit__(type(error), error, error.__traceback__)
            raise
        return entering.result()

    async def _relay(self, generation: Generation) -> bytes:
        """Everything but the stream's last bytes, which are returned."""
        render = self._renderer(generation)
        route = route_label(generation.job, generation.target)
        opening = render.first(self.request.n)
        if not self._started:
            await self._start([(b"x-tailor-route", route.encode())])
        async for events in generation:
            await self._write(opening + render.events(events))
            opening = b""
        return render.usage(usage_object(generation.usage, route)) if self._include_usage else b""

    async def _break_off(self, error: Exception) -> None:
        # A typed error and no [DONE]: clients take a silent end for success.
        told = problem(error) if isinstance(error, TailorError) else INTERNAL
        await self._write(b"data: " + problem_body(told, self._identifier) + b"\n\n", more=False)

    def _renderer(self, generation: Generation) -> Renderer:
        identity = Identity(
            id=_PREFIX[self._operation] + self._identifier.removeprefix("req_"),
            created=int(time.time()),
            model=self.request.model,
            system_fingerprint="fp_" + generation.job.profile.digest.removeprefix("sha256:")[:12],
        )
        return renderer(self._operation, identity, logprobs=self.request.logprobs, include_usage=self._include_usage)

    def _start(self, headers: list[tuple[bytes, bytes]]) -> Awaitable[None]:
        self._started = True
        return self._send(
            {"type": "http.response.start", "status": 200, "headers": [*STREAM_HEADERS, self._identity, *headers]}
        )

    def _write(self, data: bytes, *, more: bool = True) -> Awaitable[None]:
        return self._send({"type": "http.response.body", "body": data, "more_body": more})
