"""
Registers adapters in forked processes, which die without clean-up at the Nth step that touches the disk, or do not.

    python -m tests.contract.adapters.crashing each FOLDER DIRECTORY     one store a step, until a process lives
    python -m tests.contract.adapters.crashing together STORE DIRECTORY…  one process a directory, all at once

A process of its own, because forking is only safe before there are threads. Prints JSON.
"""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.registry.limits import Registration
from gateway.registry.registry import Registry
from gateway.stores.adapter_store import FileAdapterStore
from gateway.stores.memory_catalog import MemoryCatalog
from tests.contract.adapters.conftest import Book
from tests.unit.adapters.handmade import engine

MOST_STEPS = 200


def arm(steps: int) -> None:
    """Die before the step with this number: each rename, each flush, each new folder."""
    left = steps

    def deadly(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            if left == 0:
                os._exit(9)
            left -= 1
            return real(*arguments, **options)

        return step

    for name in ("rename", "fsync", "mkdir"):
        setattr(os, name, deadly(getattr(os, name)))


def register(directory: Path, adapter: Path) -> dict[str, Any]:
    store = FileAdapterStore(directory)
    registry = Registry(store, MemoryCatalog([engine()], store.directory), [engine()], Book())
    done = asyncio.run(registry.register_directories([adapter], Registration(tenant="acme", name="bot")))
    return {"number": done.version.number, "outcome": done.outcome}


def forked(work: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return child


def status_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def each(folder: Path, adapter: Path) -> list[int]:
    """Exit statuses: 9 where it died at that step; the last is 0."""
    statuses: list[int] = []
    for step in range(MOST_STEPS):

        def work(step: int = step) -> None:
            arm(step)
            register(folder / str(step), adapter)

        statuses.append(status_of(forked(work)))
        if statuses[-1] != 9:
            break
    return statuses


def together(store: Path, adapters: list[Path]) -> list[dict[str, Any]]:
    """What each process was answered."""
    FileAdapterStore(store)
    answers = [store.with_name(f"answer-{index}") for index in range(len(adapters))]

    def work(adapter: Path, answer: Path) -> Callable[[], object]:
        return lambda: answer.write_text(json.dumps(register(store, adapter)))

    children = [forked(work(adapter, answer)) for adapter, answer in zip(adapters, answers, strict=True)]
    assert [status_of(child) for child in children] == [0] * len(children)
    return [json.loads(answer.read_text()) for answer in answers]


if __name__ == "__main__":
    how, where, *what = sys.argv[1:]
    paths = [Path(item) for item in what]
    print(json.dumps(each(Path(where), paths[0]) if how == "each" else together(Path(where), paths)))
