"""
Makes a version's tensors for the engines that are present, at most so many conversions at a time.

Decides which engines need what: those of the version's base, once for each tensor key. Does not know what a version is
called, nor how converting works (gateway/adapters does).
"""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from gateway.adapters.bounded import convert_bounded
from gateway.adapters.directory import AdapterFiles
from gateway.adapters.job_limits import JobLimits
from gateway.adapters.refusal import AdapterRefused
from gateway.domain.manifest import EngineManifest
from gateway.domain.version import Conversion, Derived, VersionRecord
from gateway.registry.ports import AdapterStore


class Derivation:
    """Conversions for a set of engines, which never changes."""

    def __init__(
        self, store: AdapterStore, engines: Sequence[EngineManifest], *, limits: JobLimits, max_conversions: int
    ) -> None:
        self._store = store
        self._limits = limits
        self._places = asyncio.Semaphore(max_conversions)
        self._engines: dict[str, dict[str, EngineManifest]] = {}
        for engine in engines:
            self._engines.setdefault(engine.base.name, {}).setdefault(engine.tensor_key, engine)

    @property
    def bases(self) -> tuple[str, ...]:
        """Bases that some engine here serves."""
        return tuple(self._engines)

    @property
    def keys(self) -> dict[str, frozenset[str]]:
        """Tensor keys of the present engines, by base."""
        return {base: frozenset(engines) for base, engines in self._engines.items()}

    async def derive(
        self, tenant: str, digest: str, base: str, files: Sequence[AdapterFiles], *, any_base_name: bool
    ) -> None:
        """
        Whatever is missing for the engines of `base`. All of it is kept, or nothing.

        Raises:
            AdapterRefused: one of the engines cannot serve it.
            StorageFull: there is no room for it.
        """
        there = {item.tensor_key for item in await asyncio.to_thread(self._store.derived, tenant, digest)}
        missing = [engine for key, engine in self._engines.get(base, {}).items() if key not in there]
        if not missing:
            return
        async with self._places:
            await asyncio.to_thread(self._make, tenant, digest, missing, files, any_base_name)

    async def derive_again(self, tenant: str, record: VersionRecord) -> tuple[list[str], list[str]]:
        """
        Convert a version from its stored files and compare with what is there.

        Returns problems that remain, and what was found damaged and has been put right.
        """
        problems: list[str] = []
        repaired: list[str] = []
        stored = {item.tensor_key: item for item in await asyncio.to_thread(self._store.derived, tenant, record.digest)}
        for key, engine in self._engines.get(record.document.base, {}).items():
            async with self._places:
                try:
                    was = await asyncio.to_thread(self._compare, tenant, record, engine, stored.get(key))
                except AdapterRefused as refused:
                    problems.append(f"The engine of {engine.base.name} no longer takes it: {refused}")
                    continue
            if was == "different":
                problems.append(
                    f"Converting again for {engine.base.name} gives other bytes than those recorded; the base or the "
                    "converter has changed under them."
                )
            elif was != "same":
                repaired.append(f"The tensors for {engine.base.name} were {was} and have been derived again.")
        return problems, repaired

    def files(self, record: VersionRecord) -> list[AdapterFiles]:
        """A version's adapters as the store keeps them."""
        return [AdapterFiles(self._store.blob(item.config), self._store.blob(item.weights)) for item in record.adapters]

    def _make(
        self,
        tenant: str,
        digest: str,
        engines: Sequence[EngineManifest],
        files: Sequence[AdapterFiles],
        any_base_name: bool,
    ) -> None:
        with ExitStack() as folders:
            made = []
            for engine in engines:
                folder = folders.enter_context(self._store.staging())
                made.append((engine, self._convert(files, engine, folder, any_base_name=any_base_name), folder))
            for engine, conversion, folder in made:
                self._store.keep_derived(tenant, digest, engine, conversion, folder)

    def _compare(self, tenant: str, record: VersionRecord, engine: EngineManifest, stored: Derived | None) -> str:
        with self._store.staging() as folder:
            made = self._convert(self.files(record), engine, folder, any_base_name=record.any_base_name)
            if stored is not None:
                if (made.lora, made.prompt) != (stored.conversion.lora, stored.conversion.prompt):
                    return "different"
                if self._store.derived_intact(stored):
                    return "same"
                self._store.drop_derived(stored)
            self._store.keep_derived(tenant, record.digest, engine, made, folder)
            return "missing" if stored is None else "damaged"

    def _convert(
        self, files: Sequence[AdapterFiles], engine: EngineManifest, folder: Path, *, any_base_name: bool
    ) -> Conversion:
        return convert_bounded(files, engine, folder, any_base_name=any_base_name, limits=self._limits)
