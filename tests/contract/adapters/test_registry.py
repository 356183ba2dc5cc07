"""
The life of a profile over a real store: registering, versions, labels, isolation, verification.
"""

import asyncio
import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from gateway.adapters.archive import ProfileNotes
from gateway.adapters.refusal import AdapterRefused, RefusalCode
from gateway.domain.errors import Overloaded
from gateway.domain.manifest import Dtype
from gateway.domain.profile import ModelName, Profile
from gateway.domain.registry_errors import (
    NotRegistered,
    RegistryConflict,
    RegistryError,
    RegistryUnavailable,
    StorageFull,
    UploadInvalid,
)
from gateway.domain.tenant import Tenant
from gateway.registry.limits import Registration, RegistryLimits
from gateway.registry.registry import Registry
from gateway.stores import atomic_files
from gateway.stores.adapter_store import FileAdapterStore
from gateway.stores.catalog_index import RedisCatalogIndex
from gateway.stores.memory_catalog import MemoryCatalog
from gateway.stores.redis_client import redis_client
from tests.contract.adapters.conftest import ACME, GLOBEX, Book, Directories
from tests.contract.adapters.valkey import Valkey
from tests.unit.adapters.handmade import engine, lora_config, lora_tensors, write

BOT = Registration(tenant="acme", name="bot")


def find(catalog: MemoryCatalog, text: str, tenant: Tenant = ACME) -> Profile | None:
    name = ModelName.parse(text)
    assert name is not None
    return catalog.resolve(tenant, name)


def served(catalog: MemoryCatalog, text: str, tenant: Tenant = ACME) -> int | None:
    found = find(catalog, text, tenant)
    return None if found is None else found.version


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_the_first_version_is_live_and_later_ones_wait(
    registry: Registry, catalog: MemoryCatalog, directories: Directories
) -> None:
    first = await registry.register_directories([directories.lora], BOT)
    assert (first.outcome, first.version.number, first.live) == ("registered", 1, 1)
    second = await registry.register_directories([directories.other], BOT)
    assert (second.outcome, second.version.number, second.live) == ("registered", 2, 1)
    assert served(catalog, "bot") == 1
    assert served(catalog, "bot@2") == 2
    third = await registry.register_directories([directories.ia3], replace(BOT, promote=True))
    assert third.live == 3
    assert served(catalog, "bot") == 3


async def test_derived_files_are_what_the_profile_says(
    registry: Registry, catalog: MemoryCatalog, directories: Directories
) -> None:
    await registry.register_directories(
        [directories.lora, directories.table], BOT, ProfileNotes(instruction="Be kind.")
    )
    found = find(catalog, "bot")
    assert found is not None
    assert found.kind == "lora+virtual-tokens"
    assert found.instruction == "Be kind."
    assert found.lora is not None
    assert found.prompt is not None
    weights = np.fromfile(found.lora.weights, "<f4")
    config = np.fromfile(found.lora.config, "<i4")
    table = np.fromfile(found.prompt.table, "<f4")
    assert weights.size == found.lora.rows * found.lora.width
    assert config.size == found.lora.rows * found.lora.columns
    assert table.size == found.prompt.rows * found.prompt.hidden
    assert found.lora.dtype is Dtype.FLOAT32
    assert 1 <= found.lora.task_id < 2**63
    assert 1 <= found.prompt.extra_id < 2**63


async def test_bytes_are_kept_as_they_were_handed_in(
    registry: Registry, store: FileAdapterStore, directories: Directories
) -> None:
    await registry.register_directories([directories.lora], BOT)
    record = store.version("acme", "bot", 1)
    source = record.adapters[0]
    assert store.blob(source.config).read_bytes() == (directories.lora / "adapter_config.json").read_bytes()
    assert store.blob(source.weights).read_bytes() == (directories.lora / "adapter_model.safetensors").read_bytes()


async def test_the_same_content_again_is_the_same_version(
    registry: Registry, store: FileAdapterStore, directories: Directories, tmp_path: Path
) -> None:
    first = await registry.register_directories([directories.lora], BOT)
    before = files_of(store.directory)
    again = await registry.register_directories([directories.lora], BOT)
    assert (again.outcome, again.version) == ("unchanged", first.version)
    # Another machine's path and another order of keys are no other content.
    config = json.loads((directories.lora / "adapter_config.json").read_text())
    moved = write(
        tmp_path / "moved",
        dict(reversed((config | {"base_model_name_or_path": "/elsewhere/small-llama"}).items())),
        lora_tensors(),
    )
    elsewhere = await registry.register_directories([moved], BOT)
    assert (elsewhere.outcome, elsewhere.version.digest) == ("unchanged", first.version.digest)
    assert files_of(store.directory) == before


async def test_anything_that_changes_the_answer_is_another_version(
    registry: Registry, directories: Directories, tmp_path: Path
) -> None:
    digests = {(await registry.register_directories([directories.lora], BOT)).version.digest}
    halved = write(tmp_path / "alpha", lora_config(lora_alpha=8), lora_tensors())
    for folders, notes in (
        ([directories.other], None),
        ([halved], None),
        ([directories.lora], ProfileNotes(instruction="Be brief.")),
        ([directories.lora, directories.table], None),
    ):
        digests.add((await registry.register_directories(folders, BOT, notes)).version.digest)
    assert len(digests) == 5


async def test_two_tenants_with_equal_bytes_share_no_id(
    registry: Registry, catalog: MemoryCatalog, directories: Directories
) -> None:
    """Equal ids would let one tenant's prompts be found in the other's reusable KV blocks."""
    both = [directories.lora, directories.table]
    ours = await registry.register_directories(both, BOT)
    theirs = await registry.register_directories(both, Registration(tenant="globex", name="bot"))
    assert ours.version.digest == theirs.version.digest
    mine, other = find(catalog, "bot", ACME), find(catalog, "bot", GLOBEX)
    assert mine is not None
    assert other is not None
    assert mine.lora is not None
    assert other.lora is not None
    assert mine.lora.task_id != other.lora.task_id
    assert mine.prompt is not None
    assert other.prompt is not None
    assert mine.prompt.extra_id != other.prompt.extra_id
    assert mine.lora.weights.read_bytes() == other.lora.weights.read_bytes()


async def test_one_tenants_equal_adapters_share_one_id(
    registry: Registry, catalog: MemoryCatalog, directories: Directories
) -> None:
    """The engine then holds the weights once."""
    await registry.register_directories([directories.lora], BOT)
    await registry.register_directories([directories.lora], Registration(tenant="acme", name="twin"))
    mine, twin = find(catalog, "bot"), find(catalog, "twin")
    assert mine is not None
    assert twin is not None
    assert mine.lora == twin.lora


async def test_promote_and_roll_back(registry: Registry, catalog: MemoryCatalog, directories: Directories) -> None:
    for directory in (directories.lora, directories.other, directories.ia3):
        await registry.register_directories([directory], BOT)
    with pytest.raises(RegistryConflict, match="no earlier live version"):
        await registry.rollback("acme", "bot")
    digest = (await registry.show("acme", "bot")).versions[2].digest
    assert (await registry.promote("acme", "bot", 2)).before == 1
    assert (await registry.promote("acme", "bot", digest)).live == 3
    assert served(catalog, "bot") == 3
    assert (await registry.promote("acme", "bot", "live")).before == 3
    assert (await registry.rollback("acme", "bot")).live == 2
    assert (await registry.rollback("acme", "bot")).live == 1
    assert served(catalog, "bot") == 1
    with pytest.raises(RegistryConflict):
        await registry.rollback("acme", "bot")


async def test_rolling_back_passes_over_what_was_retired(
    registry: Registry, catalog: MemoryCatalog, directories: Directories
) -> None:
    for directory in (directories.lora, directories.other, directories.ia3):
        await registry.register_directories([directory], replace(BOT, promote=True))
    await registry.remove("acme", "bot", 2)
    assert (await registry.rollback("acme", "bot")).live == 1
    assert served(catalog, "bot@2") is None


async def test_a_live_version_cannot_be_removed_but_the_profile_can(
    registry: Registry, catalog: MemoryCatalog, directories: Directories
) -> None:
    await registry.register_directories([directories.lora], BOT)
    await registry.register_directories([directories.other], BOT)
    with pytest.raises(RegistryConflict, match="promote another version first"):
        await registry.remove("acme", "bot", "live")
    assert (await registry.remove("acme", "bot", 2)).retired == (2,)
    assert (await registry.remove("acme", "bot", 2)).retired == ()
    with pytest.raises(RegistryConflict, match="retired"):
        await registry.promote("acme", "bot", 2)
    assert (await registry.remove("acme", "bot")).retired == (1,)
    assert served(catalog, "bot") is None
    assert await registry.profiles() == ()


async def test_adding_what_was_removed_restores_it_under_its_number(
    registry: Registry, catalog: MemoryCatalog, directories: Directories
) -> None:
    await registry.register_directories([directories.lora], BOT)
    await registry.register_directories([directories.other], BOT)
    await registry.remove("acme", "bot")
    restored = await registry.register_directories([directories.other], BOT)
    assert (restored.outcome, restored.version.number, restored.live) == ("restored", 2, 2)
    assert served(catalog, "bot") == 2
    assert served(catalog, "bot@1") is None
    assert (await registry.register_directories([directories.ia3], BOT)).version.number == 3


async def test_grants(registry: Registry, catalog: MemoryCatalog, directories: Directories) -> None:
    await registry.register_directories([directories.lora], BOT)
    assert served(catalog, "acme/bot", GLOBEX) is None
    assert await registry.grant("acme", "bot", ["globex"]) == ("globex",)
    assert served(catalog, "acme/bot", GLOBEX) == 1
    await registry.grant("acme", "bot", [])
    assert served(catalog, "acme/bot", GLOBEX) is None
    for unknown in ("nobody", "acme"):
        with pytest.raises(NotRegistered, match=f"no other tenant {unknown}"):
            await registry.grant("acme", "bot", [unknown])


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        (Registration(tenant="nobody", name="bot"), NotRegistered, "no tenant nobody"),
        (Registration(tenant="acme", name="Bot"), UploadInvalid, "cannot be a profile's name"),
        (Registration(tenant="acme", name="../bot"), UploadInvalid, "cannot be a profile's name"),
        (Registration(tenant="acme", name="small-llama"), RegistryConflict, "name of a base model"),
        (Registration(tenant="acme", name="bot", base="other"), NotRegistered, "No engine here serves other"),
    ],
)
async def test_what_names_nothing_is_refused_before_any_work(
    what: Registration,
    error: type[RegistryError],
    words: str,
    registry: Registry,
    store: FileAdapterStore,
    directories: Directories,
) -> None:
    with pytest.raises(error, match=words):
        await registry.register_directories([directories.lora], what)
    assert files_of(store.directory) == {}


async def test_a_refused_adapter_leaves_nothing(
    registry: Registry, store: FileAdapterStore, catalog: MemoryCatalog, tmp_path: Path
) -> None:
    bad = write(tmp_path / "bad", lora_config(r=4), lora_tensors())
    with pytest.raises(AdapterRefused) as caught:
        await registry.register_directories([bad], BOT)
    assert caught.value.code is RefusalCode.RANK_MISMATCH
    assert {name for name in files_of(store.directory) if not name.endswith(".lock")} == set()
    assert await registry.profiles() == ()
    with pytest.raises(NotRegistered):
        await registry.show("acme", "bot")


async def test_every_engine_of_the_base_must_take_it(
    store: FileAdapterStore, catalog: MemoryCatalog, directories: Directories
) -> None:
    lesser = engine(lora={"max_rank": 4})
    registry = Registry(store, catalog, [engine(), lesser], Book())
    with pytest.raises(AdapterRefused) as caught:
        await registry.register_directories([directories.lora], BOT)
    assert caught.value.code is RefusalCode.RANK_TOO_LARGE
    assert {name for name in files_of(store.directory) if not name.endswith(".lock")} == set()


async def test_two_bases_need_a_choice(store: FileAdapterStore, directories: Directories) -> None:
    other = engine(base=msgspec.structs.replace(engine().base, name="other"))
    catalog = MemoryCatalog([engine(), other], store.directory)
    registry = Registry(store, catalog, [engine(), other], Book())
    with pytest.raises(UploadInvalid, match="small-llama, other"):
        await registry.register_directories([directories.lora], BOT)
    await registry.register_directories([directories.lora], replace(BOT, base="small-llama"))
    assert served(catalog, "bot") == 1


async def test_a_new_engine_gets_tensors_at_the_next_start(
    registry: Registry, store: FileAdapterStore, directories: Directories
) -> None:
    """Names and versions stay; what engines are sent is derived again under other ids."""
    first = await registry.register_directories([directories.lora, directories.table], BOT)
    halved = engine(lora={"dtype": Dtype.FLOAT16}, prompt_table={"dtype": Dtype.FLOAT16})
    catalog = MemoryCatalog([halved], store.directory)
    later = Registry(store, catalog, [halved], Book())
    await later.rebuild()
    assert find(catalog, "bot") is None
    assert not (await later.show("acme", "bot")).versions[0].servable
    assert await later.start() == ()
    found = find(catalog, "bot")
    assert found is not None
    assert found.digest == first.version.digest
    assert found.lora is not None
    assert found.lora.dtype is Dtype.FLOAT16
    assert str(found.lora.task_id) != first.version.derived[0].lora_task_id


async def test_a_start_names_what_an_engine_cannot_serve(
    registry: Registry, store: FileAdapterStore, directories: Directories
) -> None:
    await registry.register_directories([directories.lora], BOT)
    lesser = engine(lora={"max_rank": 4})
    catalog = MemoryCatalog([lesser], store.directory)
    underived = await Registry(store, catalog, [lesser], Book()).start()
    assert [(item.tenant, item.name, item.version) for item in underived] == [("acme", "bot", 1)]
    assert "takes ranks up to 4" in underived[0].reason
    assert find(catalog, "bot") is None


async def test_verify_finds_and_mends_derived_tensors(
    registry: Registry, catalog: MemoryCatalog, directories: Directories
) -> None:
    await registry.register_directories([directories.lora], BOT)
    assert await registry.verify("acme", "bot") == msgspec.convert(
        {"tenant": "acme", "name": "bot", "version": 1, "ok": True, "problems": [], "repaired": []},
        type(await registry.verify("acme", "bot")),
    )
    found = find(catalog, "bot")
    assert found is not None
    assert found.lora is not None
    good = found.lora.weights.read_bytes()
    found.lora.weights.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    mended = await registry.verify("acme", "bot", 1)
    assert mended.ok
    assert "damaged" in mended.repaired[0]
    assert found.lora.weights.read_bytes() == good
    shutil.rmtree(found.lora.weights.parent)
    assert "missing" in (await registry.verify("acme", "bot")).repaired[0]
    assert found.lora.weights.read_bytes() == good


async def test_verify_finds_changed_originals(
    registry: Registry, store: FileAdapterStore, directories: Directories
) -> None:
    await registry.register_directories([directories.lora], BOT)
    blob = store.blob(store.version("acme", "bot", 1).adapters[0].weights)
    blob.chmod(0o600)
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    result = await registry.verify("acme", "bot")
    assert not result.ok
    assert "adapter_model.safetensors of its lora adapter is missing or changed" in result.problems[0]


async def test_a_damaged_record_is_named(registry: Registry, store: FileAdapterStore, directories: Directories) -> None:
    await registry.register_directories([directories.lora], BOT)
    (store.directory / "profiles/acme/bot/versions/1.json").write_text("{")
    with pytest.raises(RegistryError, match="version 1 of acme/bot cannot be read"):
        await registry.show("acme", "bot")


@pytest.mark.parametrize("record", ["state.json", "versions/1.json"])
async def test_a_damaged_record_keeps_no_other_profile_from_its_callers(
    store: FileAdapterStore, registry: Registry, directories: Directories, record: str
) -> None:
    await registry.register_directories([directories.lora], BOT)
    await registry.register_directories([directories.lora], replace(BOT, name="sound"))
    (store.directory / "profiles/acme/bot" / record).write_text("{")
    catalog = MemoryCatalog([engine()], store.directory)
    restarted = Registry(store, catalog, [engine()], Book())
    await restarted.start()
    assert find(catalog, "bot") is None
    assert find(catalog, "sound") is not None
    assert [view.name for view in await restarted.profiles()] == ["sound"]
    assert restarted.tenants()[0].profiles >= 1


async def test_twenty_at_once_make_one_version(
    registry: Registry, catalog: MemoryCatalog, directories: Directories
) -> None:
    """F62: one id, one conversion."""
    limits = RegistryLimits(max_uploads=20)
    registry.limits = limits
    results = await asyncio.gather(*(registry.register_directories([directories.lora], BOT) for _ in range(20)))
    assert [result.outcome for result in results].count("registered") == 1
    assert {result.version.number for result in results} == {1}
    assert served(catalog, "bot") == 1


async def test_uploads_are_bounded(registry: Registry) -> None:
    registry.limits = RegistryLimits(max_uploads=1)
    async with registry.receive():
        with pytest.raises(Overloaded):
            async with registry.receive():
                pass
    async with registry.receive():
        pass


async def test_an_abandoned_upload_leaves_nothing(registry: Registry, store: FileAdapterStore) -> None:
    async def leave() -> None:
        async with registry.receive() as reader:
            reader.feed(b"x" * 100)
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await leave()
    assert files_of(store.directory) == {}


async def test_a_full_disk_changes_nothing_and_can_be_repeated(
    registry: Registry, store: FileAdapterStore, directories: Directories, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F61, at each moment that something is forced to disk: the system's answer there is ENOSPC."""
    await registry.register_directories([directories.other], BOT)
    before = {name for name in files_of(store.directory) if "/versions/" in name or name.endswith("state.json")}
    for fail_at in range(100):
        left = fail_at

        def full(handle: int) -> None:
            nonlocal left
            if left == 0:
                left = -1
                raise OSError(errno.ENOSPC, "No space left on device")
            left -= 1

        with monkeypatch.context() as patched:
            patched.setattr(atomic_files.os, "fsync", full)
            try:
                await registry.register_directories([directories.lora], BOT)
            except StorageFull:
                pass
            else:
                break
        shown = await registry.show("acme", "bot")
        assert [version.number for version in shown.versions] in ([1], [1, 2])
        assert shown.live == 1
        assert list((store.directory / "staging").iterdir()) == []
        assert before <= set(files_of(store.directory))
    assert 5 < fail_at < 99
    assert (await registry.register_directories([directories.lora], BOT)).version.number == 2
    assert (await registry.verify("acme", "bot", 2)).ok


async def test_no_room_is_said_before_the_upload(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, directories: Directories
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1 << 40, 1 << 40, 1 << 20))
    with pytest.raises(StorageFull, match="free some space"):
        await registry.register_directories([directories.lora], BOT)


async def test_nothing_changes_while_redis_is_down(
    store: FileAdapterStore, mortal_valkey: Valkey, directories: Directories
) -> None:
    redis = redis_client(mortal_valkey.url, 0.5)
    registry = Registry(store, RedisCatalogIndex(redis), [engine()], Book())
    await registry.start()
    await registry.register_directories([directories.lora], BOT)
    await registry.register_directories([directories.other], BOT)
    before = files_of(store.directory)
    mortal_valkey.stop()
    for change in (
        registry.register_directories([directories.ia3], BOT),
        registry.promote("acme", "bot", 2),
        registry.remove("acme", "bot"),
        registry.grant("acme", "bot", ["globex"]),
    ):
        with pytest.raises(RegistryUnavailable):
            await change
    assert files_of(store.directory) == before
    # An empty Redis is told everything again before the next change.
    mortal_valkey.start()
    await registry.promote("acme", "bot", 2)
    assert len(await redis.hgetall("tailor:catalog:profiles")) == 1
    await redis.aclose()


async def test_the_index_is_written_anew_when_it_was_lost(
    store: FileAdapterStore, mortal_valkey: Valkey, directories: Directories
) -> None:
    redis = redis_client(mortal_valkey.url, 0.5)
    registry = Registry(store, RedisCatalogIndex(redis), [engine()], Book())
    await registry.start()
    await registry.register_directories([directories.lora], BOT)
    watch = asyncio.create_task(registry.watch())
    mortal_valkey.flush()
    for _ in range(100):
        if await redis.hexists("tailor:catalog:profiles", "acme/bot"):
            break
        await asyncio.sleep(0.1)
    else:
        pytest.fail("the index is still empty")
    watch.cancel()
    await redis.aclose()
