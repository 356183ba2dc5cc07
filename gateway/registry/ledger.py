"""
What is recorded of every profile, changed by one at a time and told to gateways through the index.

Decides locking, the moment a change counts, and what happens while the index is away: nothing changes then, and an
index that was lost or missed something is written anew from the files. Does not know what the changes mean
(registry.py does).
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from gateway.domain.profile import is_profile_name
from gateway.domain.registry_errors import NotRegistered, RegistryConflict, RegistryError, RegistryUnavailable
from gateway.domain.version import ProfileState
from gateway.registry.ports import AdapterStore, CatalogIndex
from gateway.registry.views import Snapshot, catalog_entry

_log = logging.getLogger("tailor.registry")
_LOCK_POLL_S = 0.05
_WATCH_PERIOD_S = 1.0


class Ledger:
    """Reads and commits profile states."""

    def __init__(self, store: AdapterStore, index: CatalogIndex, *, lock_wait_s: float) -> None:
        self._store = store
        self._index = index
        self._lock_wait_s = lock_wait_s
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        # Reading files and telling what they say is one step, or an older picture could overtake a newer one.
        self._telling = asyncio.Lock()
        # Until the index has been written once by this process, what it holds may be of another time.
        self._stale = True

    async def watch(self) -> None:
        """Write the index anew whenever it was lost or could not be written. Runs until cancelled."""
        reachable = True
        while True:
            await asyncio.sleep(_WATCH_PERIOD_S)
            try:
                if not await self._index.check() or self._stale:
                    _log.warning("the catalog's index was written anew: %d profiles", await self.rebuild())
                reachable = True
            except RegistryUnavailable as error:
                if reachable:
                    _log.warning("the catalog's index cannot be reached: %s", error.message)
                reachable = False

    async def rebuild(self) -> int:
        """Write the index anew from the files; says how many profiles it holds. Raises RegistryUnavailable."""
        async with self._telling:
            self._stale = True
            entries = [catalog_entry(snapshot) for snapshot in await self.snapshots()]
            await self._index.replace(entries)
            self._stale = False
        return len(entries)

    async def writable(self) -> None:
        """Nothing may change while gateways could not learn of it. Raises RegistryUnavailable."""
        if not await self._index.check() or self._stale:
            await self.rebuild()

    async def states(self) -> list[ProfileState]:
        """Every profile's, by tenant and name."""
        return list(await asyncio.to_thread(self._store.states))

    async def snapshots(self, tenant: str | None = None) -> list[Snapshot]:
        """
        Everything recorded about each profile that has a version, of one tenant or of all, by tenant and name.

        One whose records are damaged is left out and told of in the log: it may not keep the others from their callers.
        """
        found = []
        for state in await self.states():
            if state.present and tenant in (None, state.tenant):
                try:
                    found.append(await self.snapshot(state))
                except RegistryError as error:
                    _log.error("%s/%s cannot be served: %s", state.tenant, state.name, error)
        return found

    async def find(self, tenant: str, name: str) -> Snapshot | None:
        """Everything recorded about a profile, or None."""
        if not (is_profile_name(tenant) and is_profile_name(name)):
            return None
        state = await asyncio.to_thread(self._store.state, tenant, name)
        return None if state is None else await self.snapshot(state)

    async def get(self, tenant: str, name: str) -> Snapshot:
        """Everything recorded about a profile. Raises NotRegistered."""
        snapshot = await self.find(tenant, name)
        if snapshot is None or not snapshot.state.versions:
            raise NotRegistered(
                f"There is no profile {tenant}/{name}; `tailor adapters list` shows what there is.", "name"
            )
        return snapshot

    async def snapshot(self, state: ProfileState) -> Snapshot:
        """A state with the versions it names."""
        return await asyncio.to_thread(self._read, state)

    @asynccontextmanager
    async def locked(self, tenant: str, name: str) -> AsyncIterator[None]:
        """One change of a profile at a time: first among our own tasks, then among processes."""
        if not (is_profile_name(tenant) and is_profile_name(name)):
            raise NotRegistered(f"There is no profile {tenant}/{name}.", "name")
        # Held by this frame, so the weak entry lives as long as anybody waits for it.
        ours = self._locks.setdefault((tenant, name), asyncio.Lock())
        async with ours:
            until = time.monotonic() + self._lock_wait_s
            while (held := await asyncio.to_thread(self._store.try_lock, tenant, name)) is None:
                if time.monotonic() > until:
                    raise RegistryConflict(f"Another process is changing {tenant}/{name}; repeat when it is done.")
                await asyncio.sleep(_LOCK_POLL_S)
            with held:
                yield

    async def commit(self, state: ProfileState) -> Snapshot:
        """The state counts from here on, and gateways are told. Raises StorageFull, RegistryUnavailable."""
        await asyncio.to_thread(self._store.save_state, state)
        return await self.publish(state.tenant, state.name)

    async def publish(self, tenant: str, name: str) -> Snapshot:
        """Tell gateways what is recorded of a profile. Raises RegistryUnavailable."""
        async with self._telling:
            snapshot = await self.get(tenant, name)
            try:
                if snapshot.state.present:
                    await self._index.publish(catalog_entry(snapshot))
                else:
                    await self._index.withdraw(tenant, name)
            except RegistryUnavailable as error:
                self._stale = True
                raise RegistryUnavailable(
                    f"{tenant}/{name} is recorded, but gateways cannot be told now ({error.message}); they will be as "
                    "soon as Redis answers."
                ) from error
        return snapshot

    def _read(self, state: ProfileState) -> Snapshot:
        versions = tuple(self._store.version(state.tenant, state.name, number) for number in state.versions)
        return Snapshot(
            state=state,
            versions=versions,
            derived={record.number: tuple(self._store.derived(state.tenant, record.digest)) for record in versions},
        )
