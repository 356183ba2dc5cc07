"""
A real Valkey, an adapter store in a temporary folder, and a registry over both.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.domain.tenant import Tenant
from gateway.registry.registry import Registry
from gateway.stores.adapter_store import FileAdapterStore
from gateway.stores.memory_catalog import MemoryCatalog
from tests.contract.adapters.valkey import Valkey
from tests.unit.adapters.handmade import (
    engine,
    ia3_config,
    ia3_tensors,
    lora_config,
    lora_tensors,
    prompt_config,
    prompt_tensors,
    write,
)

ACME = Tenant("acme", frozenset({"small-llama"}))
GLOBEX = Tenant("globex", frozenset())


class Book:
    """Two tenants."""

    def tenants(self) -> list[Tenant]:
        return [ACME, GLOBEX]


@dataclass(frozen=True)
class Directories:
    """Adapters to register; `lora` and `other` differ in their weights."""

    lora: Path
    other: Path
    ia3: Path
    table: Path


@pytest.fixture(scope="session")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Directories:
    folder = tmp_path_factory.mktemp("adapters")
    other = {name: tensor * 1.5 for name, tensor in lora_tensors().items()}
    return Directories(
        write(folder / "lora", lora_config(), lora_tensors()),
        write(folder / "other", lora_config(), other),
        write(folder / "ia3", ia3_config(), ia3_tensors()),
        write(folder / "table", prompt_config(), prompt_tensors()),
    )


@pytest.fixture
def store(tmp_path: Path) -> FileAdapterStore:
    return FileAdapterStore(tmp_path / "store")


@pytest.fixture
def catalog(store: FileAdapterStore) -> MemoryCatalog:
    return MemoryCatalog([engine()], store.directory)


@pytest.fixture
def registry(store: FileAdapterStore, catalog: MemoryCatalog) -> Registry:
    return Registry(store, catalog, [engine()], Book())


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def valkey(valkey_server: Valkey) -> Valkey:
    """The session's server, emptied."""
    valkey_server.flush()
    return valkey_server


@pytest.fixture
def mortal_valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A server of the test's own, to be stopped and frozen."""
    server = Valkey(tmp_path)
    server.start()
    yield server
    server.stop()
