"""
The real admin application on a free port, in a thread: for clients that speak HTTP over a socket.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI

from gateway.domain.keys import new_key
from gateway.registry.registry import Registry
from gateway.transport.admin import admin_app
from gateway.transport.auth import KeyRing
from tests.contract.adapters.valkey import free_port

PEPPER = "a pepper of sixteen or more"


@dataclass(frozen=True)
class AdminServer:
    url: str
    key: str
    registry: Registry


async def _no_engines() -> list[object]:
    return []


@asynccontextmanager
async def _lifespan(app: FastAPI):
    await app.state.registry.start()
    yield


@contextmanager
def admin_server(registry: Registry) -> Iterator[AdminServer]:
    key = new_key(PEPPER)
    app = admin_app(KeyRing({key.id: (key.hash, "test")}, PEPPER), _no_engines, lambda: b"", _lifespan)
    app.state.registry = registry
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.02)
        yield AdminServer(f"http://127.0.0.1:{port}", key.text, registry)
    finally:
        server.should_exit = True
        thread.join()
