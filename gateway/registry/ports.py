"""
What the registry needs from outside: files that remember, an index that gateways read, and who the tenants are.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from gateway.domain.manifest import EngineManifest
from gateway.domain.tenant import Tenant
from gateway.domain.version import Blob, CatalogEntry, Conversion, Derived, ProfileState, VersionRecord


class CatalogIndex(Protocol):
    """
    The shared index that catalogs read. Written by the control process only.

    Raises RegistryUnavailable from every method when it cannot be reached.
    """

    async def check(self) -> bool:
        """Whether the index is there and no older than it was; False after it was lost or went back in time."""
        ...

    async def publish(self, entry: CatalogEntry) -> None:
        """Put one profile in place of what was there."""
        ...

    async def withdraw(self, tenant: str, name: str) -> None:
        """Take one profile out."""
        ...

    async def replace(self, entries: Sequence[CatalogEntry]) -> None:
        """Put these in place of everything."""
        ...


class TenantBook(Protocol):
    """Who the tenants are now."""

    def tenants(self) -> Sequence[Tenant]:
        """All of them."""
        ...


class AdapterStore(Protocol):
    """
    The record of what exists: bytes as handed in, immutable versions, each profile's state, tensors derived from them.

    Every method blocks on files; call them off the event loop. Whatever writes raises StorageFull when there is no
    room, and then has changed nothing. A version exists once a saved state names it, and not before.
    """

    def staging(self) -> AbstractContextManager[Path]:
        """An empty folder on the store's own volume, gone when the block ends."""
        ...

    def require_room(self, nbytes: int) -> None:
        """Raise StorageFull now rather than half-way through."""
        ...

    def try_lock(self, tenant: str, name: str) -> AbstractContextManager[None] | None:
        """The right to change one profile, to be held as a block; None while another process has it."""
        ...

    def state(self, tenant: str, name: str) -> ProfileState | None: ...

    def states(self) -> Sequence[ProfileState]:
        """Every profile's, by tenant and name, but those that cannot be read."""
        ...

    def save_state(self, state: ProfileState) -> None: ...

    def version(self, tenant: str, name: str, number: int) -> VersionRecord: ...

    def save_version(self, tenant: str, name: str, record: VersionRecord) -> None: ...

    def keep_blob(self, file: Path, blob: Blob) -> None:
        """Move a file into the store under its digest."""
        ...

    def blob(self, blob: Blob) -> Path: ...

    def intact(self, blob: Blob) -> bool:
        """Whether the bytes still have the digest they are named by."""
        ...

    def keep_derived(
        self, tenant: str, digest: str, engine: EngineManifest, conversion: Conversion, folder: Path
    ) -> Derived:
        """Move converted tensors into the store; where the same are there already, those stay."""
        ...

    def derived(self, tenant: str, digest: str) -> Sequence[Derived]:
        """What the present converter has made of a version."""
        ...

    def derived_intact(self, derived: Derived) -> bool:
        """Whether every file of it still has its recorded digest."""
        ...

    def drop_derived(self, derived: Derived) -> None:
        """Forget converted tensors, so that they are made again."""
        ...
