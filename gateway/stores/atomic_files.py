"""
Files that appear whole or not at all, also when the power goes.
"""

import hashlib
import os
import secrets
from pathlib import Path

from gateway.adapters.room import room_errors


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path`. Whoever reads it meanwhile sees the old content or the new. Raises StorageFull."""
    with room_errors():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            beside.write_bytes(content)
            flush(beside)
            beside.rename(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        flush(path.parent)


def flush(path: Path) -> None:
    """Force a file, or the names in a directory, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
