"""
The catalog that serving asks, kept up with the index in Redis by looking at one number four times a second.

Decides what happens while Redis is away (the last good copy answers, however old) and when one entry cannot be read
(its last good copy answers). Does not know what names mean (catalog_view.py does).
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.domain.manifest import EngineManifest
from gateway.domain.profile import ModelName, Profile
from gateway.domain.tenant import Tenant
from gateway.domain.version import CatalogEntry
from gateway.stores.catalog_index import PROFILES, REVISION
from gateway.stores.catalog_view import CatalogView, Listed, ProfileBuilder

_log = logging.getLogger("tailor.catalog")


class RedisProfileCatalog:
    """
    Implements gateway.ports.ProfileCatalog; `watch` has to run beside it.

    `age_s` of an entry is at most `period_s` and one round trip while Redis answers.
    """

    def __init__(
        self, redis: "Redis", engines: Iterable[EngineManifest], store: Path, *, period_s: float = 0.25
    ) -> None:
        self._redis = redis
        self._builder = ProfileBuilder(engines, store)
        self._bases = self._builder.bases
        self._period_s = period_s
        self._revision: bytes | None = None
        self._raw: dict[bytes, bytes] = {}
        self._listed: dict[tuple[str, str], Listed] = {}
        self._view = CatalogView(self._bases, {})

    @property
    def loaded(self) -> bool:
        return self._revision is not None

    def resolve(self, tenant: Tenant, name: ModelName) -> Profile | None:
        return self._view.resolve(tenant, name)

    def visible(self, tenant: Tenant) -> Sequence[Profile]:
        return self._view.visible(tenant)

    async def watch(self) -> None:
        """Keep up with the index. Runs until cancelled, whatever Redis does."""
        reachable = True
        while True:
            try:
                await self.refresh()
                if not reachable:
                    _log.warning("the catalog is kept up again")
                reachable = True
            except (RedisError, OSError) as error:
                if reachable:
                    _log.warning("the catalog is not kept up, its last good copy answers: %s", error)
                reachable = False
            await asyncio.sleep(self._period_s)

    async def refresh(self) -> bool:
        """
        Read the index where its number is another; says whether it was.

        A number that is gone means that Redis has lost its data: what is known stays until it is written again.

        Raises:
            RedisError, OSError: Redis does not answer; nothing has changed.
        """
        revision = await self._redis.get(REVISION)
        if revision is None or revision == self._revision:
            return False
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.get(REVISION)
            pipe.hgetall(PROFILES)
            revision, fields = await pipe.execute()
        if revision is None:
            return False
        self._take(fields)
        self._revision = revision
        return True

    def _take(self, fields: Mapping[bytes, bytes]) -> None:
        listed: dict[tuple[str, str], Listed] = {}
        for key, content in fields.items():
            tenant, _, name = key.decode(errors="replace").partition("/")
            known = self._listed.get((tenant, name))
            if known is not None and self._raw.get(key) == content:
                listed[tenant, name] = known
                continue
            try:
                entry = msgspec.json.decode(content, type=CatalogEntry)
            except msgspec.MsgspecError as error:
                _log.error(
                    "the catalog's entry %s/%s cannot be read, its last good copy answers: %s", tenant, name, error
                )
                if known is not None:
                    listed[tenant, name] = known
                continue
            listed[tenant, name] = self._builder.build(entry)
        # One assignment each: a request sees the old view or the new one.
        self._raw, self._listed = dict(fields), listed
        self._view = CatalogView(self._bases, listed)
