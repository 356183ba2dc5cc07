"""
Books of sendings of each kind; those in Redis are on a real Valkey.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gateway.ports import SendingBook
from gateway.stores.memory_sendings import MemorySendings
from gateway.stores.redis_client import redis_client
from gateway.stores.sendings import RedisSendings
from tests.contract.adapters.valkey import Valkey

Books = Callable[[], SendingBook]
"""Each call is another process's view of the same book."""


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def mortal_valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A server of the test's own, to be stopped and frozen."""
    server = Valkey(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def redis_books(valkey_server: Valkey) -> AsyncIterator[Books]:
    valkey_server.flush()
    async with AsyncExitStack() as clients:

        def book() -> SendingBook:
            client = redis_client(valkey_server.url, 2.0)
            clients.push_async_callback(client.aclose)
            return RedisSendings(client)

        yield book


@pytest.fixture
def memory_books() -> Books:
    shared = MemorySendings()
    return lambda: shared


@pytest.fixture(params=["memory", "redis"])
def books(request: pytest.FixtureRequest) -> Books:
    made: Books = request.getfixturevalue(f"{request.param}_books")
    return made
