"""
The adapter store as a directory, on a local disk or a volume that several pods mount.

    blobs/ab/abcd…                         bytes as they were handed in, by SHA-256
    profiles/TENANT/NAME/versions/3.json   immutable
    profiles/TENANT/NAME/state.json        what may change: which versions exist, labels, grants
    derived/TENANT/DIGEST/KEY-cN/          tensors for the engines with that tensor key, made by converter N
    staging/                               work in progress

Decides how a change becomes visible all at once: files are written beside their place, forced to disk, and renamed; a
version counts once state.json names it. So a crash leaves at worst bytes that nobody refers to. Does not know what an
adapter is worth, nor who may do what (gateway/registry does).
"""

import fcntl
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from gateway.adapters.convert import CONVERTER_VERSION
from gateway.adapters.room import room_errors
from gateway.domain.manifest import EngineManifest
from gateway.domain.profile import is_profile_name
from gateway.domain.registry_errors import NotRegistered, RegistryError, StorageFull
from gateway.domain.version import Blob, Conversion, Derived, DerivedFile, ProfileState, VersionRecord, engine_id
from gateway.stores.atomic_files import digest_of, flush, write_atomically

_log = logging.getLogger("tailor.store")
_T = TypeVar("_T")
_RECORD = "derived.json"
_FLOOR_BYTES = 256 << 20
_FLOOR_SHARE = 0.05
_STALE_STAGING_S = 3600.0


class FileAdapterStore:
    """Implements gateway.registry.ports.AdapterStore. Several processes may use one directory at a time."""

    def __init__(self, directory: Path) -> None:
        """Make the directory where it is missing, and clear away what a crash left in staging an hour ago or longer."""
        self.directory = directory.resolve()
        for name in ("blobs", "profiles", "derived", "staging"):
            (self.directory / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._sweep()

    @contextmanager
    def staging(self) -> Iterator[Path]:
        folder = self.directory / "staging" / secrets.token_hex(8)
        with room_errors():
            folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def require_room(self, nbytes: int) -> None:
        """Some of the volume stays free for what others write there: 5 % of it or 256 MiB, whichever is less."""
        usage = shutil.disk_usage(self.directory)
        needed = nbytes + min(int(usage.total * _FLOOR_SHARE), _FLOOR_BYTES)
        if usage.free < needed:
            raise StorageFull(
                f"The adapter store's volume has {usage.free:,} bytes free and this needs {needed:,}; "
                "free some space and repeat."
            )

    def try_lock(self, tenant: str, name: str) -> AbstractContextManager[None] | None:
        """An advisory lock on a file in the profile's folder; it ends with the process that holds it."""
        folder = self._profile(tenant, name)
        with room_errors():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return _closing(lock)

    def state(self, tenant: str, name: str) -> ProfileState | None:
        try:
            content = (self._profile(tenant, name) / "state.json").read_bytes()
        except FileNotFoundError:
            return None
        return _decode(content, ProfileState, f"the state of {tenant}/{name}")

    def states(self) -> Sequence[ProfileState]:
        states = []
        for path in sorted((self.directory / "profiles").glob("*/*/state.json")):
            try:
                states.append(_decode(path.read_bytes(), ProfileState, str(path)))
            except RegistryError as error:
                _log.error("a profile is left out: %s", error)
        return states

    def save_state(self, state: ProfileState) -> None:
        write_atomically(self._profile(state.tenant, state.name) / "state.json", msgspec.json.encode(state))

    def version(self, tenant: str, name: str, number: int) -> VersionRecord:
        try:
            content = self._version(tenant, name, number).read_bytes()
        except FileNotFoundError as error:
            raise NotRegistered(f"{tenant}/{name} has no version {number}.") from error
        return _decode(content, VersionRecord, f"version {number} of {tenant}/{name}")

    def save_version(self, tenant: str, name: str, record: VersionRecord) -> None:
        write_atomically(self._version(tenant, name, record.number), msgspec.json.encode(record))

    def keep_blob(self, file: Path, blob: Blob) -> None:
        place = self.blob(blob)
        if place.exists() and place.stat().st_size == blob.bytes:
            return
        with room_errors():
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            file.chmod(0o400)
            flush(file)
            file.rename(place)
            flush(place.parent)

    def blob(self, blob: Blob) -> Path:
        return self.directory / "blobs" / blob.sha256[:2] / blob.sha256

    def intact(self, blob: Blob) -> bool:
        return _intact(self.blob(blob), blob.bytes, blob.sha256)

    def keep_derived(
        self, tenant: str, digest: str, engine: EngineManifest, conversion: Conversion, folder: Path
    ) -> Derived:
        place = self._derived(tenant, digest) / f"{engine.tensor_key}-c{conversion.converter}"
        lora, prompt = conversion.lora, conversion.prompt
        key = engine.tensor_key
        derived = Derived(
            folder=str(place.relative_to(self.directory)),
            tensor_key=key,
            task_id=0
            if lora is None
            else engine_id(content=lora.weights.sha256 + lora.config.sha256, tensor_key=key, tenant=tenant),
            extra_id=0 if prompt is None else engine_id(content=prompt.table.sha256, tensor_key=key, tenant=tenant),
            conversion=conversion,
        )
        with room_errors():
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(folder / _RECORD, msgspec.json.encode(derived))
            for file in _files(conversion):
                flush(folder / file.name)
            flush(folder)
            try:
                folder.rename(place)
            except OSError:
                # Somebody derived the same a moment ago; a rename onto a folder that is not empty fails.
                if not (place / _RECORD).exists():
                    raise
            flush(place.parent)
        return derived

    def derived(self, tenant: str, digest: str) -> Sequence[Derived]:
        found = sorted(self._derived(tenant, digest).glob(f"*-c{CONVERTER_VERSION}/{_RECORD}"))
        return [_decode(path.read_bytes(), Derived, str(path)) for path in found]

    def derived_intact(self, derived: Derived) -> bool:
        folder = self.directory / derived.folder
        return all(_intact(folder / file.name, file.bytes, file.sha256) for file in _files(derived.conversion))

    def drop_derived(self, derived: Derived) -> None:
        # Renamed first: a reader sees all of it or none.
        gone = self.directory / "staging" / secrets.token_hex(8)
        (self.directory / derived.folder).rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _profile(self, tenant: str, name: str) -> Path:
        # The last line before the file system; names were checked where they came in.
        if not (is_profile_name(tenant) and is_profile_name(name)):
            raise NotRegistered(f"{tenant}/{name} is no profile.")
        return self.directory / "profiles" / tenant / name

    def _version(self, tenant: str, name: str, number: int) -> Path:
        return self._profile(tenant, name) / "versions" / f"{number}.json"

    def _derived(self, tenant: str, digest: str) -> Path:
        if not is_profile_name(tenant):
            raise NotRegistered(f"{tenant} is no tenant.")
        return self.directory / "derived" / tenant / digest.removeprefix("sha256:")

    def _sweep(self) -> None:
        for left in (self.directory / "staging").iterdir():
            try:
                stale = time.time() - left.stat().st_mtime > _STALE_STAGING_S
            except FileNotFoundError:
                continue
            if stale:
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _closing(lock: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(lock)


def _files(conversion: Conversion) -> Iterator[DerivedFile]:
    if conversion.lora is not None:
        yield conversion.lora.weights
        yield conversion.lora.config
    if conversion.prompt is not None:
        yield conversion.prompt.table


def _intact(path: Path, nbytes: int, sha256: str) -> bool:
    try:
        return path.stat().st_size == nbytes and digest_of(path) == sha256
    except OSError:
        return False


def _decode(content: bytes, kind: type[_T], what: str) -> _T:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.MsgspecError as error:
        raise RegistryError(f"The adapter store is damaged: {what} cannot be read ({error}).") from error
