"""
One Triton for this folder's tests, and a backend of each kind for each test.
"""

import random
from collections.abc import AsyncIterator, Iterator

import pytest

from gateway.local.ports import is_free
from tests.contract.backends.worlds import Engine, World, scripted_world, triton_world, write_tiny_engine
from tests.live.engine_triton import RunningTriton, missing, triton


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return write_tiny_engine(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def running_triton(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTriton]:
    if reason := missing():
        pytest.skip(reason)
    with triton(engine.directory, three_free_ports(), tmp_path_factory.mktemp("log") / "triton.log") as running:
        yield running


def three_free_ports() -> int:
    """The first of three in a row, below those that the system gives to outgoing connections."""
    candidates = random.sample(range(20_000, 30_000, 3), k=200)
    return next(first for first in candidates if all(map(is_free, range(first, first + 3))))


@pytest.fixture(params=["scripted", "triton"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "scripted":
        yield scripted_world()
        return
    engine, running = request.getfixturevalue("engine"), request.getfixturevalue("running_triton")
    async with triton_world(engine, running.grpc) as made:
        yield made
