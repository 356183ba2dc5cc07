"""
F62, F63: registration killed at every step, and by several processes at once.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from gateway.domain.profile import ModelName
from gateway.registry.limits import Registration
from gateway.registry.registry import Registry
from gateway.stores.adapter_store import FileAdapterStore
from gateway.stores.memory_catalog import MemoryCatalog
from tests.contract.adapters.conftest import ACME, Book, Directories
from tests.contract.adapters.crashing import MOST_STEPS
from tests.unit.adapters.handmade import engine

BOT = Registration(tenant="acme", name="bot")


def run(*arguments: object) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "tests.contract.adapters.crashing", *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
        check=True,
    )
    return json.loads(done.stdout)


async def test_killed_at_any_step_nothing_is_half_registered(tmp_path: Path, directories: Directories) -> None:
    statuses = run("each", tmp_path, directories.lora)
    assert statuses == [9] * (len(statuses) - 1) + [0]
    assert 10 < len(statuses) < MOST_STEPS
    name = ModelName.parse("bot")
    assert name is not None
    counted = 0
    for step in range(len(statuses)):
        store = FileAdapterStore(tmp_path / str(step))
        catalog = MemoryCatalog([engine()], store.directory)
        registry = Registry(store, catalog, [engine()], Book())
        # What the next start finds: no profile, or all of it.
        assert await registry.start() == ()
        profile = catalog.resolve(ACME, name)
        if await registry.profiles():
            counted += 1
            assert profile is not None
            record = store.version("acme", "bot", 1)
            assert all(store.intact(blob) for item in record.adapters for blob in (item.config, item.weights))
            assert all(store.derived_intact(item) for item in store.derived("acme", record.digest))
        else:
            assert profile is None
        # Repeating the command completes it.
        again = await registry.register_directories([directories.lora], BOT)
        assert (again.version.number, again.live) == (1, 1)
        assert catalog.resolve(ACME, name) is not None
    assert 1 < counted < len(statuses)


def test_several_processes_at_once(tmp_path: Path, directories: Directories) -> None:
    adapters = [directories.lora, directories.other, directories.ia3, directories.table] * 2
    answers = run("together", tmp_path / "store", *adapters)
    assert sorted(answer["number"] for answer in answers if answer["outcome"] == "registered") == [1, 2, 3, 4]
    numbers = {adapter: set() for adapter in adapters}
    for adapter, answer in zip(adapters, answers, strict=True):
        numbers[adapter].add(answer["number"])
    assert all(len(same) == 1 for same in numbers.values())
    state = FileAdapterStore(tmp_path / "store").state("acme", "bot")
    assert state is not None
    assert state.versions == (1, 2, 3, 4)
    assert state.live == 1
