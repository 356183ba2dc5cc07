"""
The catalog and its index in one process's memory: for tests, examples and embedding. The same promises as the Redis
pair.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from gateway.domain.manifest import EngineManifest
from gateway.domain.profile import ModelName, Profile
from gateway.domain.tenant import Tenant
from gateway.domain.version import CatalogEntry
from gateway.stores.catalog_view import CatalogView, ProfileBuilder


class MemoryCatalog:
    """Implements gateway.ports.ProfileCatalog and gateway.registry.ports.CatalogIndex."""

    def __init__(self, engines: Iterable[EngineManifest], store: Path) -> None:
        self._builder = ProfileBuilder(engines, store)
        self._entries: dict[tuple[str, str], CatalogEntry] = {}
        self._view: CatalogView | None = None

    @property
    def loaded(self) -> bool:
        return self._view is not None

    def resolve(self, tenant: Tenant, name: ModelName) -> Profile | None:
        return None if self._view is None else self._view.resolve(tenant, name)

    def visible(self, tenant: Tenant) -> Sequence[Profile]:
        return () if self._view is None else self._view.visible(tenant)

    async def check(self) -> bool:
        return self._view is not None

    async def publish(self, entry: CatalogEntry) -> None:
        self._entries[entry.tenant, entry.name] = entry
        self._look()

    async def withdraw(self, tenant: str, name: str) -> None:
        self._entries.pop((tenant, name), None)
        self._look()

    async def replace(self, entries: Sequence[CatalogEntry]) -> None:
        self._entries = {(entry.tenant, entry.name): entry for entry in entries}
        self._look()

    def _look(self) -> None:
        profiles = {key: self._builder.build(entry) for key, entry in self._entries.items()}
        self._view = CatalogView(self._builder.bases, profiles)
