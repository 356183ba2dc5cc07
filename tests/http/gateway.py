"""
The callers' application on a real server and a free port, in a thread, over a script in place of the engines.
"""

import asyncio
import http.client
import json
import select
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI
from openai import OpenAI

from gateway.backends.scripted import Play, ScriptedBackend
from gateway.domain.job import Endpoint
from gateway.domain.keys import new_key
from gateway.domain.profile import Profile
from gateway.domain.record import RequestRecord
from gateway.domain.tenant import Tenant
from gateway.generate import Generate, GenerateLimits
from gateway.stores.catalog_view import CatalogView, Listed
from gateway.tokens.tokenizer import BaseTokenizer
from gateway.transport.app import callers_app
from gateway.transport.auth import KeyRing
from gateway.transport.connection import ConnectionLimits, bounded_connections
from gateway.transport.models import ModelsEndpoint
from gateway.transport.probes import Probes
from gateway.transport.text import TextEndpoint, TextLimits
from tests.contract.backends.worlds import TINY
from tests.unit.domain.making import ACME, BASE, ENDPOINT, GLOBEX, PROMPT, TUNED

PEPPER = "a pepper of the tests"
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
VIRTUAL = Profile(
    tenant="acme", name="faq", version=1, digest="sha256:" + "cd" * 32, base="tiny", prompt=PROMPT, created=2
)
FOREIGN = Profile(tenant="globex", name="secret-bot", version=1, digest="sha256:" + "ef" * 32, base="tiny", created=3)
GRANTED = Profile(tenant="globex", name="shared-bot", version=1, digest="sha256:" + "01" * 32, base="tiny", created=4)

_codec = BaseTokenizer.load(TINY)


class Catalog(CatalogView):
    """Two tenants' profiles, known from the start."""

    loaded = True

    def __init__(self) -> None:
        profiles = {}
        for profile in (TUNED, VIRTUAL, FOREIGN, GRANTED):
            selectors: dict[int | str, Profile] = {profile.version: profile, profile.digest: profile, "live": profile}
            grants = frozenset({"acme"}) if profile is GRANTED else frozenset[str]()
            profiles[profile.tenant or "", profile.name] = Listed(selectors, grants)
        super().__init__({"tiny": BASE}, profiles)


class Records(list[RequestRecord]):
    """An Observer that keeps them when they have ended, and counts those that have not."""

    under_way = 0

    def started(self, record: RequestRecord) -> None:
        self.under_way += 1

    def finished(self, record: RequestRecord) -> None:
        self.under_way -= 1
        self.append(record)


@dataclass(frozen=True)
class Reply:
    """One response, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """OpenAI's error object, without what differs from one request to the next."""
        error = dict(self.json["error"])
        assert set(error) == {"message", "type", "param", "code", "request_id"}
        assert error.pop("request_id") == self.headers["x-request-id"]
        return error


@dataclass
class Raw:
    """A connection as bytes."""

    socket: socket.socket
    unread: bytes = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def until(self, mark: bytes) -> bytes:
        """The next bytes up to and with the mark."""
        while mark not in self.unread:
            more = self.socket.recv(65536)
            assert more, self.unread
            self.unread += more
        read, self.unread = self.unread[: (end := self.unread.index(mark) + len(mark))], self.unread[end:]
        return read

    def silent(self, for_s: float = 0.1) -> bool:
        return not self.unread and not select.select([self.socket], [], [], for_s)[0]


@dataclass
class Gateway:
    """A running one. `key` is acme's."""

    port: int
    backend: ScriptedBackend
    records: Records
    key: str
    other_key: str
    loop: asyncio.AbstractEventLoop
    events: dict[str, asyncio.Event] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def client(self, key: str | None = None) -> OpenAI:
        return OpenAI(base_url=self.url, api_key=key or self.key, max_retries=0, timeout=20.0)

    def set(self, event: asyncio.Event) -> None:
        """Let a script go on that waits for this."""
        self.loop.call_soon_threadsafe(event.set)

    def in_flight(self) -> int:
        return self.backend.in_flight(ENDPOINT)

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        *,
        key: str | None = "",
    ) -> Reply:
        """One exchange on a connection of its own; `body` as JSON unless it is bytes. `key` None sends none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        sent = {} if key is None else {"authorization": f"Bearer {key or self.key}"}
        data = body if body is None or isinstance(body, bytes) else json.dumps(body)
        connection.request(method, path, data, {**sent, **(headers or {})})
        response = connection.getresponse()
        reply = Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        connection.close()
        return reply

    def chat(self, content: str = "hi", **fields: object) -> Reply:
        return self.request("POST", CHAT, chat_body(content, **fields))

    @contextmanager
    def raw(self, path: str, body: object) -> Iterator[Raw]:
        """A connection on which a request has been sent."""
        data = json.dumps(body).encode()
        lines = [
            f"POST {path} HTTP/1.1",
            "host: x",
            f"authorization: Bearer {self.key}",
            f"content-length: {len(data)}",
        ]
        head = "\r\n".join([*lines, "", ""])
        with self.connected() as raw:
            raw.send(head.encode() + data)
            yield raw

    @contextmanager
    def connected(self) -> Iterator[Raw]:
        """A connection on which nothing has been sent."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            yield Raw(connection)


def chat_body(content: str = "hi", **fields: object) -> dict[str, object]:
    return {"model": "support-bot", "messages": [{"role": "user", "content": content}], **fields}


def events_of(body: bytes) -> list[bytes]:
    """The data of a stream's events, comments left out."""
    blocks = body.split(b"\n\n")
    assert blocks.pop() == b""
    return [block.removeprefix(b"data: ") for block in blocks if not block.startswith(b":")]


def wait_for(condition: Any, within_s: float = 20.0) -> None:
    """Return as soon as the condition holds."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.005)


@contextmanager
def serving(
    play: Play,
    *,
    endpoints: Sequence[Endpoint] = (ENDPOINT,),
    heartbeat_s: float = 30.0,
    body_bytes: int = 100_000,
    body_s: float = 20.0,
    concurrent_requests: int = 512,
    connections: ConnectionLimits | None = None,
    checks: Mapping[str, Any] | None = None,
) -> Iterator[Gateway]:
    """A gateway for as long as the block lasts; it must stop of itself then."""
    keys = {tenant.name: new_key(PEPPER) for tenant in (ACME, GLOBEX)}
    ring: KeyRing[Tenant] = KeyRing(
        {keys[tenant.name].id: (keys[tenant.name].hash, tenant) for tenant in (ACME, GLOBEX)}, PEPPER
    )
    backend, records, catalog = ScriptedBackend(play), Records(), Catalog()
    generate = Generate(
        catalog, {"tiny": _codec}, endpoints, backend, records, GenerateLimits(concurrent_requests, None)
    )
    limits = TextLimits(body_bytes, body_s, heartbeat_s)
    loops: list[asyncio.AbstractEventLoop] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loops.append(asyncio.get_running_loop())
        yield

    app = callers_app(
        {
            CHAT: TextEndpoint("chat", generate, ring, limits),
            COMPLETIONS: TextEndpoint("completion", generate, ring, limits),
        },
        ModelsEndpoint(catalog, ring),
        Probes(checks or {}),
        lifespan,
    )
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            loop="uvloop",
            http=bounded_connections(connections or ConnectionLimits()),
            access_log=False,
            log_config=None,
            server_header=False,
            lifespan="on",
        )
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    wait_for(lambda: server.started)
    try:
        yield Gateway(listening.getsockname()[1], backend, records, keys["acme"].text, keys["globex"].text, loops[0])
        # Whatever the test did: nothing may be under way when everybody has left.
        wait_for(lambda: backend.in_flight(ENDPOINT) == 0 and records.under_way == 0)
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()
    assert not thread.is_alive(), "the server did not stop"
