"""
API keys: their grammar, their checksum, and the keyed hash that is stored instead of them.

Decides what a key looks like and whether a presented one matches a stored hash. Does not know tenants or storage.
A key reads `tlr_<id>_<secret><checksum>`: the id is public and finds the record, the checksum tells a typo from a
real key before anything is looked up.
"""

import hashlib
import hmac
import re
import secrets
import zlib
from typing import NamedTuple

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_KEY = re.compile(r"tlr_([0-9A-Za-z]{12})_([0-9A-Za-z]{32})([0-9A-Za-z]{6})", re.ASCII)


class NewKey(NamedTuple):
    """`text` is shown once and never stored; `id` and `hash` go into the configuration."""

    text: str
    id: str
    hash: str


class PresentedKey(NamedTuple):
    """A key of the right form; it may still be unknown."""

    id: str
    secret: str


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode())
    digits = []
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def hash_secret(secret: str, pepper: str) -> str:
    """HMAC-SHA-256 of the secret under the deployment's pepper, in hexadecimal: a stolen table verifies nothing."""
    return hmac.digest(pepper.encode(), secret.encode(), hashlib.sha256).hex()


def new_key(pepper: str) -> NewKey:
    """A fresh key with 190 bits of secret."""
    public, secret = _random(12), _random(32)
    text = f"tlr_{public}_{secret}{_checksum(public + secret)}"
    return NewKey(text, public, hash_secret(secret, pepper))


def parse_key(text: str) -> PresentedKey | None:
    """The parts of a key, or None where form or checksum is wrong."""
    match = _KEY.fullmatch(text)
    if match is None or _checksum(match[1] + match[2]) != match[3]:
        return None
    return PresentedKey(match[1], match[2])


def matches(key: PresentedKey, stored_hash: str, pepper: str) -> bool:
    """Whether the secret is the one whose hash is stored, in constant time."""
    return hmac.compare_digest(hash_secret(key.secret, pepper), stored_hash)
