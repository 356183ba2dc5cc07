"""
One suite for every catalog: what names mean, to whom. Then what only the one over Redis promises: keeping up.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.domain.manifest import Dtype
from gateway.domain.profile import ModelName, Profile
from gateway.domain.registry_errors import RegistryUnavailable
from gateway.domain.tenant import Tenant
from gateway.domain.version import CatalogEntry, CatalogVersion, Conversion, Derived, DerivedFile, DerivedLora
from gateway.stores.catalog import RedisProfileCatalog
from gateway.stores.catalog_index import PROFILES, REVISION, RedisCatalogIndex
from gateway.stores.memory_catalog import MemoryCatalog
from gateway.stores.redis_client import redis_client
from tests.contract.adapters.conftest import ACME, GLOBEX
from tests.contract.adapters.valkey import Valkey
from tests.unit.adapters.handmade import engine

STORE = Path("/store")
BASE = "small-llama"


def derived(key: str, task: int) -> Derived:
    file = DerivedFile(name="lora_weights.bin", bytes=8, sha256="0" * 64)
    lora = DerivedLora(rows=1, width=2, columns=4, dtype=Dtype.FLOAT32, max_rank=8, weights=file, config=file)
    return Derived(
        folder=f"derived/{task}",
        tensor_key=key,
        task_id=task,
        extra_id=0,
        conversion=Conversion(converter=1, lora=lora, prompt=None, reports=()),
    )


def version(
    number: int, *, base: str = BASE, key: str = engine().tensor_key, task: int | None = None
) -> CatalogVersion:
    return CatalogVersion(
        number=number,
        digest=f"sha256:{number:064x}",
        base=base,
        created=1000 + number,
        instruction=f"instruction {number}",
        derived=(derived(key, task or number),),
    )


def entry(tenant: str = "acme", name: str = "bot", **changes: Any) -> CatalogEntry:
    plain = CatalogEntry(
        tenant=tenant, name=name, created=1, labels={"live": 1}, grants=(), versions=(version(1), version(2))
    )
    return msgspec.structs.replace(plain, **changes)


class Pair:
    """A catalog and the index it reads, of either kind."""

    def __init__(self, catalog: Any, index: Any, settle: Callable[[], Any]) -> None:
        self.catalog, self.index, self.settle = catalog, index, settle

    async def publish(self, *entries: CatalogEntry) -> None:
        for item in entries:
            await self.index.publish(item)
        await self.settle()

    def find(self, tenant: Tenant, text: str) -> Profile | None:
        name = ModelName.parse(text)
        assert name is not None
        found = self.catalog.resolve(tenant, name)
        assert found is None or isinstance(found, Profile)
        return found


async def nothing() -> None:
    return None


@pytest.fixture(params=["memory", "redis"])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    if request.param == "memory":
        memory = MemoryCatalog([engine()], STORE)
        yield Pair(memory, memory, nothing)
        return
    redis = redis_client(request.getfixturevalue("valkey").url, 2.0)
    catalog = RedisProfileCatalog(redis, [engine()], STORE)
    yield Pair(catalog, RedisCatalogIndex(redis), catalog.refresh)
    await redis.aclose()


async def test_nothing_is_known_before_the_index_was_read(pair: Pair) -> None:
    assert not pair.catalog.loaded
    assert pair.find(ACME, "bot") is None
    assert list(pair.catalog.visible(ACME)) in ([], [pair.find(ACME, BASE)])
    await pair.publish(entry())
    assert pair.catalog.loaded


async def test_a_name_picks_its_version(pair: Pair) -> None:
    await pair.publish(entry(labels={"live": 2, "canary": 1}))
    for text, number in {
        "bot": 2,
        "bot@live": 2,
        "bot@canary": 1,
        "bot@1": 1,
        f"bot@sha256:{1:064x}": 1,
        "acme/bot": 2,
        "acme/bot@1": 1,
    }.items():
        found = pair.find(ACME, text)
        assert found is not None, text
        assert found.version == number, text
    for text in ("bot@3", "bot@beta", f"bot@sha256:{3:064x}", "nobody", "globex/bot", "acme/nobody"):
        assert pair.find(ACME, text) is None, text


async def test_a_profile_has_all_that_serving_needs(pair: Pair) -> None:
    await pair.publish(entry())
    found = pair.find(ACME, "bot")
    assert found is not None
    assert found.tenant == "acme"
    assert found.base == BASE
    assert found.kind == "lora"
    assert found.instruction == "instruction 1"
    assert found.created == 1001
    assert found.lora is not None
    assert found.lora.task_id == 1
    assert found.lora.weights == STORE / "derived/1/lora_weights.bin"


async def test_another_tenants_profile_is_unknown_until_granted(pair: Pair) -> None:
    await pair.publish(entry())
    assert pair.find(GLOBEX, "bot") is None
    assert pair.find(GLOBEX, "acme/bot") is None
    assert list(pair.catalog.visible(GLOBEX)) == []
    await pair.publish(entry(grants=("globex",)))
    assert pair.find(GLOBEX, "bot") is None
    granted = pair.find(GLOBEX, "acme/bot@2")
    assert granted is not None
    assert granted.version == 2
    assert [(item.tenant, item.name) for item in pair.catalog.visible(GLOBEX)] == [("acme", "bot")]
    await pair.publish(entry())
    assert pair.find(GLOBEX, "acme/bot") is None


async def test_equal_names_of_two_tenants_are_two_profiles(pair: Pair) -> None:
    theirs = entry("globex", versions=(version(1, task=77),))
    await pair.publish(entry(), theirs)
    ours = pair.find(ACME, "bot")
    other = pair.find(GLOBEX, "bot")
    assert ours is not None
    assert other is not None
    assert (ours.tenant, other.tenant) == ("acme", "globex")
    assert ours.lora != other.lora


async def test_a_base_is_named_by_whom_it_was_given_to(pair: Pair) -> None:
    await pair.publish(entry())
    base = pair.find(ACME, BASE)
    assert base is not None
    assert (base.tenant, base.version, base.kind) == (None, 0, "base")
    assert pair.find(GLOBEX, BASE) is None
    assert pair.find(ACME, f"{BASE}@1") is None
    assert pair.find(ACME, f"acme/{BASE}") is None


async def test_what_is_visible_is_what_can_be_named(pair: Pair) -> None:
    await pair.publish(
        entry(), entry(name="zeta"), entry(name="silent", labels={}), entry("globex", "lent", grants=("acme",))
    )
    visible = list(pair.catalog.visible(ACME))
    assert [(item.tenant, item.name) for item in visible] == [
        ("acme", "bot"),
        ("acme", "zeta"),
        ("globex", "lent"),
        (None, BASE),
    ]
    for item in visible:
        text = item.name if item.tenant in (None, "acme") else f"{item.tenant}/{item.name}"
        assert pair.find(ACME, text) == item


@pytest.mark.parametrize("folder", ["/etc", "../outside", "derived/../../outside"])
async def test_an_index_cannot_name_files_outside_the_store(pair: Pair, folder: str) -> None:
    moved = msgspec.structs.replace(derived(engine().tensor_key, 1), folder=folder)
    await pair.publish(entry(versions=(msgspec.structs.replace(version(1), derived=(moved,)),)))
    assert pair.find(ACME, "bot") is None


async def test_a_version_that_no_engine_here_can_serve_is_unknown(pair: Pair) -> None:
    elsewhere = version(3, base="other", key="k")
    older = version(4, key="the tensors of another engine of this base")
    await pair.publish(entry(labels={"live": 3}, versions=(version(1), elsewhere, older)))
    assert pair.find(ACME, "bot") is None
    assert pair.find(ACME, "bot@3") is None
    assert pair.find(ACME, "bot@4") is None
    assert pair.find(ACME, "bot@1") is not None


async def test_a_withdrawn_profile_is_gone_and_the_rest_stays(pair: Pair) -> None:
    await pair.publish(entry(), entry(name="other"))
    await pair.index.withdraw("acme", "bot")
    await pair.settle()
    assert pair.find(ACME, "bot") is None
    assert pair.find(ACME, "other") is not None


async def test_replacing_leaves_only_what_was_given(pair: Pair) -> None:
    await pair.publish(entry(), entry(name="other"))
    await pair.index.replace([entry(name="third")])
    await pair.settle()
    assert [item.name for item in pair.catalog.visible(ACME)] == ["third", BASE]


async def test_an_empty_index_is_a_loaded_one(pair: Pair) -> None:
    assert not await pair.index.check()
    await pair.index.replace([])
    await pair.settle()
    assert await pair.index.check()
    assert pair.catalog.loaded


# Only over Redis


class Reader:
    """A catalog with its watch running, as in a worker."""

    def __init__(self, server: Valkey) -> None:
        self.redis = redis_client(server.url, 0.25)
        self.catalog = RedisProfileCatalog(self.redis, [engine()], STORE, period_s=0.05)
        self.watch = asyncio.create_task(self.catalog.watch())

    def version(self, text: str = "bot") -> int | None:
        name = ModelName.parse(text)
        assert name is not None
        found = self.catalog.resolve(ACME, name)
        return None if found is None else found.version

    async def sees(self, number: int | None, text: str = "bot") -> None:
        """Wait until it answers so; a test that never gets there ends by the bound."""
        for _ in range(1000):
            if self.version(text) == number:
                return
            await asyncio.sleep(0.01)
        pytest.fail(f"{text} is still at version {self.version(text)}, not {number}")

    async def close(self) -> None:
        self.watch.cancel()
        await asyncio.gather(self.watch, return_exceptions=True)
        await self.redis.aclose()


@pytest.fixture
async def readers(mortal_valkey: Valkey) -> AsyncIterator[tuple[Reader, Reader]]:
    two = Reader(mortal_valkey), Reader(mortal_valkey)
    yield two
    for reader in two:
        await reader.close()


@pytest.fixture
async def index(mortal_valkey: Valkey) -> AsyncIterator[RedisCatalogIndex]:
    redis = redis_client(mortal_valkey.url, 1.0)
    yield RedisCatalogIndex(redis)
    await redis.aclose()


async def test_every_reader_follows_a_label(readers: tuple[Reader, Reader], index: RedisCatalogIndex) -> None:
    for number in (1, 2, 1):
        await index.publish(entry(labels={"live": number}))
        for reader in readers:
            await reader.sees(number)


async def test_the_last_good_copy_answers_while_redis_is_down(
    readers: tuple[Reader, Reader], index: RedisCatalogIndex, mortal_valkey: Valkey
) -> None:
    reader = readers[0]
    await index.publish(entry())
    await reader.sees(1)
    mortal_valkey.stop()
    with pytest.raises(RegistryUnavailable):
        await index.publish(entry(labels={"live": 2}))
    with pytest.raises(RegistryUnavailable):
        await index.check()
    await asyncio.sleep(0.3)
    assert reader.version() == 1
    # It comes back empty: nothing is forgotten until the index is written anew.
    mortal_valkey.start()
    assert not await index.check()
    await asyncio.sleep(0.3)
    assert reader.version() == 1
    await index.replace([entry(labels={"live": 2})])
    await reader.sees(2)


async def test_a_frozen_redis_holds_nobody(
    readers: tuple[Reader, Reader], index: RedisCatalogIndex, mortal_valkey: Valkey
) -> None:
    await index.publish(entry())
    await readers[0].sees(1)
    mortal_valkey.freeze()
    await asyncio.sleep(0.6)
    assert readers[0].version() == 1
    mortal_valkey.thaw()
    await index.publish(entry(labels={"live": 2}))
    await readers[0].sees(2)


async def test_an_index_written_anew_never_shows_a_number_seen_before(
    readers: tuple[Reader, Reader], index: RedisCatalogIndex, mortal_valkey: Valkey
) -> None:
    """A counter that began at 1 again would let readers take the new index for the old one."""
    await index.publish(entry())
    await readers[0].sees(1)
    mortal_valkey.flush()
    await index.publish(entry(labels={"live": 2}))
    await readers[0].sees(2)


async def test_an_index_that_went_back_in_time_is_noticed_and_written_anew(
    readers: tuple[Reader, Reader], index: RedisCatalogIndex, mortal_valkey: Valkey
) -> None:
    """What a replica that lagged, or a file that had not reached the disk, brings back is a whole index, only older."""
    await index.publish(entry())
    earlier = mortal_valkey.content()
    assert await index.check()
    await index.publish(entry(labels={"live": 2}))
    await readers[0].sees(2)
    mortal_valkey.flush()
    mortal_valkey.restore(earlier)
    await readers[0].sees(1)
    assert not await index.check()
    await index.replace([entry(labels={"live": 2})])
    assert await index.check()
    for reader in readers:
        await reader.sees(2)


@pytest.mark.parametrize("garbage", ["", "{}", "[1]", '{"tenant": 3}', "\x00\xff", '{"tenant": "acme", "name": "bot"}'])
async def test_a_broken_entry_leaves_its_last_good_copy(
    garbage: str, readers: tuple[Reader, Reader], index: RedisCatalogIndex, mortal_valkey: Valkey
) -> None:
    await index.publish(entry())
    await readers[0].sees(1)
    mortal_valkey.put(PROFILES, "acme/bot", garbage)
    await index.publish(entry(name="other"))
    await readers[0].sees(1, "other")
    assert readers[0].version() == 1


async def test_keys_of_other_types_change_nothing(
    readers: tuple[Reader, Reader], index: RedisCatalogIndex, mortal_valkey: Valkey
) -> None:
    await index.publish(entry())
    await readers[0].sees(1)
    mortal_valkey.set(PROFILES, "no hash")
    mortal_valkey.add(REVISION)
    await asyncio.sleep(0.3)
    assert readers[0].version() == 1
    with pytest.raises(RegistryUnavailable):
        await index.publish(entry())
    await index.replace([entry(labels={"live": 2})])
    await readers[0].sees(2)
