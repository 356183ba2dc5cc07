"""
The catalog's index in Redis: one hash of profiles and one number that grows with every change.

    tailor:catalog:profiles   hash, `tenant/name` -> CatalogEntry as JSON
    tailor:catalog:revision   integer

Decides how a change is written in one piece. The first revision is the time in milliseconds, so that an index made
anew after a loss never shows a number that a gateway has seen; and a smaller number than was there before tells that
Redis went back in time (a replica that lagged, a file that had not reached the disk). Written by the control process;
read by catalog.py.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.domain.registry_errors import RegistryUnavailable
from gateway.domain.version import CatalogEntry

PROFILES = "tailor:catalog:profiles"
REVISION = "tailor:catalog:revision"

_T = TypeVar("_T")


def field_of(tenant: str, name: str) -> str:
    """A profile's field in the hash."""
    return f"{tenant}/{name}"


class RedisCatalogIndex:
    """Implements gateway.registry.ports.CatalogIndex."""

    def __init__(self, redis: "Redis", *, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._redis = redis
        self._now_ms = now_ms
        self._newest = 0

    async def check(self) -> bool:
        text = await self._asked(self._redis.get(REVISION)) or b""
        revision = int(text) if text.isdigit() else 0
        known, self._newest = self._newest, max(self._newest, revision)
        return 0 < revision >= known

    async def publish(self, entry: CatalogEntry) -> None:
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(PROFILES, field_of(entry.tenant, entry.name), msgspec.json.encode(entry))
            await self._change(pipe)

    async def withdraw(self, tenant: str, name: str) -> None:
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hdel(PROFILES, field_of(tenant, name))
            await self._change(pipe)

    async def replace(self, entries: Sequence[CatalogEntry]) -> None:
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(PROFILES)
            for entry in entries:
                pipe.hset(PROFILES, field_of(entry.tenant, entry.name), msgspec.json.encode(entry))
            if not await self.check():
                pipe.set(REVISION, max(self._now_ms(), self._newest))
            await self._change(pipe)

    async def _change(self, pipe: Any) -> None:
        pipe.set(REVISION, self._now_ms(), nx=True)
        pipe.incr(REVISION)
        self._newest = (await self._asked(pipe.execute()))[-1]

    async def _asked(self, answer: Awaitable[_T]) -> _T:
        try:
            return await answer
        except (RedisError, OSError) as error:
            raise RegistryUnavailable(f"Redis does not answer: {error or type(error).__name__}") from error
