"""
How adapters travel to the admin API: a plain, uncompressed tar with a fixed set of names, written and read here.

    profile.json                    instruction and description, optional
    0/adapter_config.json
    0/adapter_model.safetensors
    1/…                             a second adapter, optional

Decides what such an archive may hold. The reader is no general tar reader on purpose: regular files of these names,
each once, bounded, and nothing that could name a place in the file system. Does not look into the files.

Source of the format: POSIX.1-1988 ustar.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from gateway.adapters.directory import CONFIG, WEIGHTS, AdapterFiles
from gateway.adapters.peft_config import MAX_CONFIG_BYTES
from gateway.adapters.room import room_errors
from gateway.domain.registry_errors import UploadInvalid, UploadTooLarge

MAX_ADAPTERS = 2
MAX_NOTES_BYTES = 1 << 18
MAX_INSTRUCTION_CHARACTERS = 1 << 16
MEDIA_TYPE = "application/x-tar"

_BLOCK = 512
_CHUNK = 1 << 20
_NOTES = "profile.json"
_COMPRESSED = {b"\x1f\x8b": "gzip", b"PK": "zip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}
_MEMBERS = {_NOTES: MAX_NOTES_BYTES} | {
    f"{index}/{name}": limit
    for index in range(MAX_ADAPTERS)
    for name, limit in ((CONFIG, MAX_CONFIG_BYTES), (WEIGHTS, 1 << 40))
}


class ProfileNotes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an engineer writes beside the files."""

    instruction: str | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    path: Path
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ReceivedAdapter:
    config: ReceivedFile
    weights: ReceivedFile


@dataclass(frozen=True, slots=True)
class Upload:
    """A complete archive, its files on disk and hashed as they came in."""

    adapters: tuple[ReceivedAdapter, ...]
    notes: ProfileNotes

    @property
    def bytes(self) -> int:
        return sum(item.config.bytes + item.weights.bytes for item in self.adapters)


def archive_size(adapters: Sequence[AdapterFiles], notes: ProfileNotes) -> int:
    """Length in bytes of what `archive` gives."""
    sizes = [len(msgspec.json.encode(notes))]
    sizes += [path.stat().st_size for item in adapters for path in (item.config, item.weights)]
    return sum(_BLOCK + -(-size // _BLOCK) * _BLOCK for size in sizes) + 2 * _BLOCK


def archive(adapters: Sequence[AdapterFiles], notes: ProfileNotes) -> Iterator[bytes]:
    """The archive in pieces of at most 1 MiB."""
    content = msgspec.json.encode(notes)
    yield _header(_NOTES, len(content)) + content + bytes(-len(content) % _BLOCK)
    for index, item in enumerate(adapters):
        for name, path in ((CONFIG, item.config), (WEIGHTS, item.weights)):
            size = path.stat().st_size
            yield _header(f"{index}/{name}", size)
            with path.open("rb") as file:
                left = size
                while left:
                    chunk = file.read(min(_CHUNK, left))
                    if not chunk:
                        raise UploadInvalid(f"{path} became shorter while it was read; repeat.")
                    left -= len(chunk)
                    yield chunk
            if size % _BLOCK:
                yield bytes(-size % _BLOCK)
    yield bytes(2 * _BLOCK)


def _header(name: str, size: int) -> bytes:
    head = bytearray(_BLOCK)
    head[0 : len(name)] = name.encode()
    head[100:108] = b"0000600\0"
    head[108:116] = head[116:124] = b"0000000\0"
    head[124:136] = f"{size:011o}\0".encode()
    head[136:148] = b"00000000000\0"
    head[156:157] = b"0"
    head[257:265] = b"ustar\x0000"
    head[148:156] = b"%06o\0 " % _checksum(head)
    return bytes(head)


def _checksum(head: bytes | bytearray) -> int:
    return sum(head[:148]) + 8 * 0x20 + sum(head[156:])


class ArchiveReader:
    """
    Takes an archive in pieces of any size and leaves its files in a folder, under names of its own.

    Memory stays at one block; nothing is written that is not a known member within its limit.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max = max_bytes
        self._received = 0
        self._buffer = bytearray()
        self._member: _Member | None = None
        self._files: dict[str, ReceivedFile] = {}
        self._ended = False

    def feed(self, data: bytes) -> None:
        """
        The next piece.

        Raises:
            UploadTooLarge: more than `max_bytes` in all.
            UploadInvalid: this is no such archive.
            StorageFull: the folder's volume has no room.
        """
        self._received += len(data)
        if self._received > self._max:
            raise UploadTooLarge(f"The upload is larger than {self._max:,} bytes, the most this gateway takes.")
        view = memoryview(data)
        with room_errors():
            while view and not self._ended:
                view = self._header_from(view) if self._member is None else self._content_from(self._member, view)

    def finish(self) -> Upload:
        """
        The files, when all has been fed.

        Raises:
            UploadInvalid: the archive is cut off, or a member is missing.
        """
        self.close()
        if not self._ended:
            raise UploadInvalid("The upload ended in the middle of the archive; repeat it.")
        adapters: list[ReceivedAdapter] = []
        for index in range(MAX_ADAPTERS):
            config, weights = self._files.get(f"{index}/{CONFIG}"), self._files.get(f"{index}/{WEIGHTS}")
            if config is None and weights is None:
                continue
            if config is None or weights is None or len(adapters) != index:
                raise UploadInvalid(f"The archive needs both {index}/{CONFIG} and {index}/{WEIGHTS}, counted from 0.")
            adapters.append(ReceivedAdapter(config, weights))
        if not adapters:
            raise UploadInvalid(f"The archive holds no adapter; it needs 0/{CONFIG} and 0/{WEIGHTS}.")
        return Upload(tuple(adapters), self._notes())

    def close(self) -> None:
        """Give up whatever is half received."""
        if self._member is not None:
            self._member.file.close()
            self._member = None

    def _header_from(self, view: memoryview) -> memoryview:
        taken = min(_BLOCK - len(self._buffer), len(view))
        self._buffer += view[:taken]
        if len(self._buffer) == _BLOCK:
            head = bytes(self._buffer)
            self._buffer.clear()
            if not any(head):
                self._ended = True
            else:
                self._open(head)
        return view[taken:]

    def _open(self, head: bytes) -> None:
        name, size = _read_header(head, first=not self._files)
        limit = _MEMBERS.get(name)
        if limit is None:
            raise UploadInvalid(f"The archive holds {name[:80]!r}; only {', '.join(_MEMBERS)} are taken.")
        if name in self._files:
            raise UploadInvalid(f"The archive holds {name} twice.")
        if size > limit:
            raise UploadTooLarge(f"{name} has {size:,} bytes; at most {limit:,} are taken.")
        path = self._folder / name.replace("/", "-")
        self._member = _Member(name, path, path.open("xb"), size)
        if size == 0:
            self._close_member(self._member)

    def _content_from(self, member: "_Member", view: memoryview) -> memoryview:
        taken = min(member.left, len(view))
        if taken:
            piece = view[:taken]
            member.digest.update(piece)
            member.file.write(piece)
            member.left -= taken
            return view[taken:]
        skipped = min(member.padding, len(view))
        member.padding -= skipped
        if member.padding == 0:
            self._close_member(member)
        return view[skipped:]

    def _close_member(self, member: "_Member") -> None:
        member.file.close()
        self._files[member.name] = ReceivedFile(member.path, member.size, member.digest.hexdigest())
        self._member = None

    def _notes(self) -> ProfileNotes:
        file = self._files.get(_NOTES)
        if file is None:
            return ProfileNotes()
        try:
            notes = msgspec.json.decode(file.path.read_bytes(), type=ProfileNotes)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise UploadInvalid(f"profile.json does not fit: {error}.") from error
        if max(len(notes.instruction or ""), len(notes.description or "")) > MAX_INSTRUCTION_CHARACTERS:
            raise UploadInvalid(
                f"instruction and description have at most {MAX_INSTRUCTION_CHARACTERS:,} characters.", "instruction"
            )
        return notes


class _Member:
    """The member that is being received."""

    def __init__(self, name: str, path: Path, file: BinaryIO, size: int) -> None:
        self.name, self.path, self.file, self.size = name, path, file, size
        self.left = size
        self.padding = -size % _BLOCK
        self.digest = hashlib.sha256()


def _read_header(head: bytes, *, first: bool) -> tuple[str, int]:
    if head[257:262] != b"ustar":
        kind = _COMPRESSED.get(head[:2])
        if first and kind is not None:
            raise UploadInvalid(f"The upload is {kind}; send a plain tar, without compression.")
        raise UploadInvalid("The upload is no ustar archive; send one as `tailor adapters add` does.")
    try:
        size, checksum = int(head[124:136].strip(b"\0 "), 8), int(head[148:156].strip(b"\0 "), 8)
        name = head[:100].rstrip(b"\0").decode("ascii")
    except ValueError as error:
        raise UploadInvalid("The archive has a header that cannot be read.") from error
    if checksum != _checksum(head):
        raise UploadInvalid("The archive has a header whose checksum is wrong.")
    if head[156:157] not in (b"0", b"\0") or any(head[345:500]):
        raise UploadInvalid(f"The archive holds {name[:80]!r}, which is no plain file with a short name.")
    if size < 0:
        raise UploadInvalid("The archive has a header with a negative size.")
    return name, size
