"""
Who calls: an API key to its tenant or to an administrator.

Decides only whether a presented key is known; one answer for every way in which it is not. Keys come from the
configuration, in memory, as keyed hashes.
"""

from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from gateway.domain.errors import InvalidKey
from gateway.domain.keys import matches, parse_key

_MESSAGE = "Incorrect or missing API key. Send it as `Authorization: Bearer tlr_…`."


Holder = TypeVar("Holder")


class KeyRing(Generic[Holder]):
    """Known keys and who holds each."""

    def __init__(self, keys: Mapping[str, tuple[str, Holder]], pepper: str) -> None:
        """`keys`: public id to (keyed hash, holder)."""
        self._keys = keys
        self._pepper = pepper

    def holder(self, headers: Iterable[tuple[bytes, bytes]]) -> Holder:
        """
        The holder of the bearer key in these ASGI headers.

        Raises:
            InvalidKey: there is none, it is malformed, or nobody holds it.
        """
        presented = next((value for name, value in headers if name == b"authorization"), b"")
        scheme, _, text = presented.decode("latin-1").partition(" ")
        key = parse_key(text.strip()) if scheme.lower() == "bearer" else None
        if key is None:
            raise InvalidKey(_MESSAGE)
        known = self._keys.get(key.id)
        if known is None or not matches(key, known[0], self._pepper):
            raise InvalidKey(_MESSAGE)
        return known[1]
