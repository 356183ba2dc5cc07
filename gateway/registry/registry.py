"""
The use case of the adapter path: register, look, promote, roll back, remove, verify.

Decides the order in which things become true: an adapter is converted for every present engine of its base before a
version exists, the version exists once the profile's state names it, and gateways learn of it last. A crash in between
leaves either nothing or something that repeating the command completes. Does not know files, Redis or HTTP.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from gateway.adapters.archive import ArchiveReader, ProfileNotes, Upload, archive
from gateway.adapters.directory import AdapterFiles, find_adapter
from gateway.adapters.refusal import AdapterRefused
from gateway.domain.errors import Overloaded
from gateway.domain.manifest import EngineManifest
from gateway.domain.profile import is_profile_name
from gateway.domain.registry_errors import (
    NotRegistered,
    RegistryConflict,
    RegistryError,
    RegistryUnavailable,
    UploadInvalid,
)
from gateway.domain.version import AdapterSource, ProfileDocument, ProfileState, VersionRecord, version_digest
from gateway.registry.derivation import Derivation
from gateway.registry.intake import adapter_sources
from gateway.registry.ledger import Ledger
from gateway.registry.limits import Registration, RegistryLimits
from gateway.registry.ports import AdapterStore, CatalogIndex, TenantBook
from gateway.registry.transitions import rolled_back, select, with_live, with_version, without_any, without_version
from gateway.registry.views import (
    LabelMoved,
    ProfileView,
    Registered,
    RegistrationOutcome,
    Removed,
    TenantView,
    Underived,
    Verification,
    profile_view,
    version_view,
)

_log = logging.getLogger("tailor.registry")


class Registry:
    """Profiles and their versions. One of it runs, in the control process."""

    def __init__(
        self,
        store: AdapterStore,
        index: CatalogIndex,
        engines: Sequence[EngineManifest],
        tenants: TenantBook,
        *,
        limits: RegistryLimits | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.limits = limits or RegistryLimits()
        self._store = store
        self._ledger = Ledger(store, index, lock_wait_s=self.limits.lock_wait_s)
        self._tenants = tenants
        self._now = now
        self._derivation = Derivation(
            store, engines, limits=self.limits.conversion, max_conversions=self.limits.max_conversions
        )
        self._uploads = 0

    # Starting and keeping up

    async def start(self) -> tuple[Underived, ...]:
        """Derive what is missing for the present engines, then write the index anew from the files."""
        underived = await self.ensure_derived()
        try:
            await self.rebuild()
        except RegistryUnavailable as error:
            _log.warning("the catalog's index was not written at start: %s", error.message)
        return underived

    async def ensure_derived(self) -> tuple[Underived, ...]:
        """Derive what present engines lack. Versions that they cannot serve are told and stay as they are."""
        underived = []
        for state in await self._ledger.states():
            for number in state.present:
                base = ""
                try:
                    record = await asyncio.to_thread(self._store.version, state.tenant, state.name, number)
                    base = record.document.base
                    await self._derive(state.tenant, record)
                except (AdapterRefused, RegistryError) as error:
                    _log.warning("%s/%s@%d cannot be served: %s", state.tenant, state.name, number, error)
                    underived.append(
                        Underived(
                            tenant=state.tenant,
                            name=state.name,
                            version=number,
                            base=base,
                            reason=str(error),
                        )
                    )
        return tuple(underived)

    async def watch(self) -> None:
        """Keep the index as the files are. Runs until cancelled."""
        await self._ledger.watch()

    async def rebuild(self) -> int:
        """Write the index anew from the files; says how many profiles it holds. Raises RegistryUnavailable."""
        return await self._ledger.rebuild()

    # Registering

    @asynccontextmanager
    async def receive(self, declared_bytes: int = 0) -> AsyncIterator[ArchiveReader]:
        """
        A place to receive one upload in, gone when the block ends.

        Raises:
            Overloaded: so many are being received already.
            StorageFull: the store has no room for `declared_bytes`.
        """
        if self._uploads >= self.limits.max_uploads:
            raise Overloaded(
                f"{self._uploads} uploads are being received, the most at a time; repeat in a moment.", 5.0
            )
        self._uploads += 1
        try:
            await asyncio.to_thread(self._store.require_room, declared_bytes)
            staging = self._store.staging()
            folder = await asyncio.to_thread(staging.__enter__)
            try:
                reader = ArchiveReader(folder, self.limits.max_upload_bytes)
                try:
                    yield reader
                finally:
                    reader.close()
            finally:
                await asyncio.to_thread(staging.__exit__, None, None, None)
        finally:
            self._uploads -= 1

    async def register(self, upload: Upload, what: Registration) -> Registered:
        """
        Make a version of what was received, inside `receive`.

        The first version of a profile goes live; a later one only with `promote`. The same content again is the same
        version.

        Raises:
            AdapterRefused: an engine of the base cannot serve it exactly.
            NotRegistered, RegistryConflict, UploadInvalid, StorageFull, RegistryUnavailable: as their sentences say.
        """
        base = self._check(what)
        await self._ledger.writable()
        document = ProfileDocument(
            base=base, instruction=upload.notes.instruction, description=upload.notes.description
        )
        sources = await asyncio.to_thread(adapter_sources, upload)
        digest = version_digest(document, sources)
        async with self._ledger.locked(what.tenant, what.name):
            snapshot = await self._ledger.find(what.tenant, what.name)
            state = (
                snapshot.state
                if snapshot
                else ProfileState(tenant=what.tenant, name=what.name, created=int(self._now()))
            )
            record = next((item for item in snapshot.versions if item.digest == digest), None) if snapshot else None
            outcome: RegistrationOutcome = "unchanged"
            if record is None:
                outcome = "registered"
                record = await self._new_version(state, upload, what, document, sources, digest)
            else:
                outcome = "restored" if record.number in state.retired else "unchanged"
                await self._derive(what.tenant, record)
            state = with_version(state, record.number, promote=what.promote)
            snapshot = await self._ledger.commit(state)
        return Registered(
            outcome=outcome,
            tenant=what.tenant,
            name=what.name,
            live=state.live,
            version=version_view(snapshot, record, self._derivation.keys),
        )

    async def register_directories(
        self, directories: Sequence[Path], what: Registration, notes: ProfileNotes | None = None
    ) -> Registered:
        """As `register`, from peft directories on this machine."""
        files = [await asyncio.to_thread(find_adapter, directory) for directory in directories]
        async with self.receive(sum(item.weights.stat().st_size for item in files)) as reader:
            await asyncio.to_thread(_read_all, reader, files, notes or ProfileNotes())
            return await self.register(reader.finish(), what)

    # Looking

    def tenants(self) -> tuple[TenantView, ...]:
        """Every tenant. Blocks on files."""
        profiles = [state.tenant for state in self._store.states() if state.present]
        return tuple(
            TenantView(name=tenant.name, bases=tuple(sorted(tenant.bases)), profiles=profiles.count(tenant.name))
            for tenant in sorted(self._tenants.tenants(), key=lambda tenant: tenant.name)
        )

    async def profiles(self, tenant: str | None = None) -> tuple[ProfileView, ...]:
        """Profiles that have a version, by tenant and name."""
        return tuple(
            [profile_view(snapshot, self._derivation.keys) for snapshot in await self._ledger.snapshots(tenant)]
        )

    async def show(self, tenant: str, name: str) -> ProfileView:
        """One profile with all its versions. Raises NotRegistered."""
        return profile_view(await self._ledger.get(tenant, name), self._derivation.keys)

    # Changing

    async def promote(self, tenant: str, name: str, selector: int | str) -> LabelMoved:
        """The version becomes what the bare name means."""
        await self._ledger.writable()
        async with self._ledger.locked(tenant, name):
            snapshot = await self._ledger.get(tenant, name)
            record = select(snapshot.state, snapshot.versions, selector)
            state = with_live(snapshot.state, record.number)
            await self._ledger.commit(state)
        return LabelMoved(tenant=tenant, name=name, before=snapshot.state.live, live=record.number)

    async def rollback(self, tenant: str, name: str) -> LabelMoved:
        """The bare name means again what it meant before."""
        await self._ledger.writable()
        async with self._ledger.locked(tenant, name):
            snapshot = await self._ledger.get(tenant, name)
            state = rolled_back(snapshot.state)
            await self._ledger.commit(state)
        return LabelMoved(tenant=tenant, name=name, before=snapshot.state.live, live=state.labels["live"])

    async def remove(self, tenant: str, name: str, selector: int | str | None = None) -> Removed:
        """
        Retire one version that no label points at, or without a selector the whole profile.

        Its name is then unknown to callers within two seconds. Files stay; adding the same content again restores it.
        """
        await self._ledger.writable()
        async with self._ledger.locked(tenant, name):
            snapshot = await self._ledger.get(tenant, name)
            if selector is None:
                state = without_any(snapshot.state)
            else:
                number = select(snapshot.state, snapshot.versions, selector).number
                state = without_version(snapshot.state, number)
            await self._ledger.commit(state)
        retired = tuple(number for number in state.retired if number not in snapshot.state.retired)
        return Removed(tenant=tenant, name=name, retired=retired)

    async def grant(self, tenant: str, name: str, grantees: Sequence[str]) -> tuple[str, ...]:
        """Exactly these other tenants may use the profile too, as `tenant/name`."""
        known = {item.name for item in self._tenants.tenants()}
        for grantee in grantees:
            if grantee not in known or grantee == tenant:
                raise NotRegistered(f"There is no other tenant {grantee}; `tailor tenants list` names them.", "tenants")
        await self._ledger.writable()
        async with self._ledger.locked(tenant, name):
            snapshot = await self._ledger.get(tenant, name)
            state = msgspec.structs.replace(snapshot.state, grants=tuple(sorted(set(grantees))))
            await self._ledger.commit(state)
        return state.grants

    async def verify(self, tenant: str, name: str, selector: int | str = "live") -> Verification:
        """Compare the stored bytes with their digests, convert them again, and compare with what engines are sent."""
        snapshot = await self._ledger.get(tenant, name)
        record = select(snapshot.state, snapshot.versions, selector)
        damaged = await asyncio.to_thread(self._damaged, record)
        problems, repaired = damaged, list[str]()
        if not damaged:
            problems, repaired = await self._derivation.derive_again(tenant, record)
        if repaired:
            async with self._ledger.locked(tenant, name):
                await self._ledger.publish(tenant, name)
        return Verification(
            tenant=tenant,
            name=name,
            version=record.number,
            ok=not problems,
            problems=tuple(problems),
            repaired=tuple(repaired),
        )

    # Steps

    def _check(self, what: Registration) -> str:
        """The base's name, when tenant, name and base are fit."""
        if what.tenant not in {tenant.name for tenant in self._tenants.tenants()}:
            raise NotRegistered(f"There is no tenant {what.tenant}; `tailor tenants list` names them.", "tenant")
        if not is_profile_name(what.name):
            raise UploadInvalid(
                f"{what.name!r} cannot be a profile's name: 1 to 64 lower-case letters, digits, '.', '_' or '-'.",
                "name",
            )
        bases = self._derivation.bases
        if what.name in bases:
            raise RegistryConflict(f"{what.name} is the name of a base model; choose another.", "name")
        base = what.base if what.base is not None else bases[0] if len(bases) == 1 else None
        if base is None:
            raise UploadInvalid(
                f"Say which base it is for with --base: {', '.join(bases) or 'none is served'}.", "base"
            )
        if base not in bases:
            raise NotRegistered(f"No engine here serves {base}; there is {', '.join(bases) or 'none'}.", "base")
        return base

    async def _new_version(
        self,
        state: ProfileState,
        upload: Upload,
        what: Registration,
        document: ProfileDocument,
        sources: tuple[AdapterSource, ...],
        digest: str,
    ) -> VersionRecord:
        if len(state.versions) >= self.limits.max_versions:
            raise RegistryConflict(
                f"{what.tenant}/{what.name} has {len(state.versions)} versions, the most there may be."
            )
        files = [AdapterFiles(item.config.path, item.weights.path) for item in upload.adapters]
        await self._derivation.derive(what.tenant, digest, document.base, files, any_base_name=what.any_base_name)
        record = VersionRecord(
            number=max(state.versions, default=0) + 1,
            digest=digest,
            created=int(self._now()),
            document=document,
            adapters=sources,
            any_base_name=what.any_base_name,
        )
        await asyncio.to_thread(self._keep, state, record, upload)
        return record

    def _keep(self, state: ProfileState, record: VersionRecord, upload: Upload) -> None:
        for source, received in zip(record.adapters, upload.adapters, strict=True):
            self._store.keep_blob(received.config.path, source.config)
            self._store.keep_blob(received.weights.path, source.weights)
        self._store.save_version(state.tenant, state.name, record)

    async def _derive(self, tenant: str, record: VersionRecord) -> None:
        await self._derivation.derive(
            tenant,
            record.digest,
            record.document.base,
            self._derivation.files(record),
            any_base_name=record.any_base_name,
        )

    def _damaged(self, record: VersionRecord) -> list[str]:
        return [
            f"The stored {what} of its {source.kind} adapter is missing or changed; add the original directory again."
            for source in record.adapters
            for what, blob in (("adapter_config.json", source.config), ("adapter_model.safetensors", source.weights))
            if not self._store.intact(blob)
        ]


def _read_all(reader: ArchiveReader, files: Sequence[AdapterFiles], notes: ProfileNotes) -> None:
    for piece in archive(files, notes):
        reader.feed(piece)
