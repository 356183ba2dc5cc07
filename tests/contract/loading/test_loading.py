"""
Getting an adapter into an engine: one sending for all who wait, whatever becomes of any of them.
"""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.backends.loader_client import LoaderClient
from gateway.domain.adapter import LoraAdapter
from gateway.domain.errors import AdapterCacheFull, DeadlineExceeded, EngineRefused, TargetUnavailable
from gateway.domain.job import Endpoint
from gateway.loading import Loading
from gateway.stores.memory_sendings import MemorySendings
from gateway.stores.redis_client import redis_client
from gateway.stores.sendings import RedisSendings
from gateway.transport.loader_socket import LoaderSocket
from tests.unit.domain.making import ENDPOINT, LORA, OTHER
from tests.waiting import until


class Primer:
    """Takes note of what it was to send, and waits for the test's word."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, int]] = []
        self.at_once = 0
        self.most_at_once = 0
        self.go = asyncio.Event()
        self.go.set()
        self.failures: list[Exception] = []

    async def prime(self, endpoint: Endpoint, adapter: LoraAdapter) -> None:
        self.sent.append((endpoint.name, adapter.task_id))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.go.wait()
            if self.failures:
                raise self.failures.pop(0)
        finally:
            self.at_once -= 1


async def test_five_hundred_who_wait_are_served_by_one_sending(books):
    primer = Primer()
    primer.go.clear()
    loading = Loading(primer, books())
    waiting = [asyncio.ensure_future(loading.load(ENDPOINT, LORA, 0)) for _ in range(500)]
    await until(lambda: len(primer.sent) == 1)
    primer.go.set()
    numbers = set(await asyncio.gather(*waiting))
    assert primer.sent == [("triton-1", 77)]
    assert len(numbers) == 1
    assert numbers.pop() > 0


async def test_gateways_that_share_a_book_send_once(books):
    primer = Primer()
    primer.go.clear()
    gateways = [Loading(primer, books()) for _ in range(5)]
    waiting = [asyncio.ensure_future(gateway.load(ENDPOINT, LORA, 0)) for gateway in gateways for _ in range(20)]
    await until(lambda: bool(primer.sent))
    primer.go.set()
    assert len(set(await asyncio.gather(*waiting))) == 1
    assert primer.sent == [("triton-1", 77)]


async def test_what_was_sent_is_not_sent_again_until_it_was_missed(books):
    primer = Primer()
    loading = Loading(primer, books())
    first = await loading.load(ENDPOINT, LORA, 0)
    assert await loading.load(ENDPOINT, LORA, 0) == first
    assert len(primer.sent) == 1
    second = await loading.load(ENDPOINT, LORA, first)
    assert second > first
    assert await loading.load(ENDPOINT, LORA, first) == second
    assert len(primer.sent) == 2


async def test_one_who_missed_a_newer_sending_does_not_settle_for_an_older_one(books):
    primer = Primer()
    primer.go.clear()
    loading = Loading(primer, books())
    early = asyncio.ensure_future(loading.load(ENDPOINT, LORA, 0))
    await until(lambda: len(primer.sent) == 1)
    future = 2**61
    late = asyncio.ensure_future(loading.load(ENDPOINT, LORA, future))
    primer.go.set()
    assert 0 < await early < future < await late
    assert len(primer.sent) == 2


async def test_one_who_asks_as_an_older_question_is_answered_is_not_given_that_answer_for_ever():
    # The one that knew no sending is told the last one; the other, an instant later, has missed that very one. It used
    # to be handed the answered question again and again without ever letting go of the event loop.
    primer = Primer()
    loading = Loading(primer, MemorySendings())
    last = await loading.load(ENDPOINT, LORA, 0)

    async def an_instant_later() -> int:
        await asyncio.sleep(0)
        return await loading.load(ENDPOINT, LORA, last)

    signal.setitimer(signal.ITIMER_REAL, 20.0)  # no timeout of the loop could end it
    try:
        known, newer = await asyncio.gather(loading.load(ENDPOINT, LORA, 0), an_instant_later())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert known == last < newer
    assert len(primer.sent) == 2


async def test_each_endpoint_and_each_adapter_has_its_own(books):
    primer = Primer()
    loading = Loading(primer, books())
    other = replace(LORA, task_id=78)
    await asyncio.gather(
        loading.load(ENDPOINT, LORA, 0), loading.load(OTHER, LORA, 0), loading.load(ENDPOINT, other, 0)
    )
    assert sorted(primer.sent) == [("triton-1", 77), ("triton-1", 78), ("triton-2", 77)]


async def test_a_failure_is_told_to_all_and_the_next_to_ask_tries_again(books):
    primer = Primer()
    primer.go.clear()
    primer.failures = [AdapterCacheFull("no room")]
    told: list[tuple[str, str]] = []
    loading = Loading(primer, books(), count=lambda endpoint, outcome: told.append((endpoint, outcome)))
    waiting = [asyncio.ensure_future(loading.load(ENDPOINT, LORA, 0)) for _ in range(50)]
    await until(lambda: len(primer.sent) == 1)
    primer.go.set()
    failures = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(failure) for failure in failures} == {AdapterCacheFull}
    assert len(primer.sent) == 1
    assert await loading.load(ENDPOINT, LORA, 0) > 0
    assert len(primer.sent) == 2
    assert told == [("triton-1", "AdapterCacheFull"), ("triton-1", "loaded")]


async def test_those_who_leave_take_nothing_from_those_who_stay(books):
    primer = Primer()
    primer.go.clear()
    loading = Loading(primer, books())
    leaving = asyncio.ensure_future(loading.load(ENDPOINT, LORA, 0))
    staying = asyncio.ensure_future(loading.load(ENDPOINT, LORA, 0))
    await until(lambda: len(primer.sent) == 1)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    primer.go.set()
    assert await staying > 0
    assert len(primer.sent) == 1


async def test_a_gateway_that_dies_while_it_sends_holds_others_up_no_longer_than_its_right_lasts(books):
    dead = books()
    assert await dead.claim("triton-1", 77, 0.1)
    primer = Primer()
    assert await Loading(primer, books()).load(ENDPOINT, LORA, 0) > 0
    assert primer.sent == [("triton-1", 77)]


async def test_an_engine_that_never_takes_it_is_given_up(books):
    primer = Primer()
    primer.go.clear()
    loading = Loading(primer, books(), patience_s=0.1)
    with pytest.raises(DeadlineExceeded):
        await loading.load(ENDPOINT, LORA, 0)
    assert primer.at_once == 0
    primer.go.set()
    assert await Loading(primer, books()).load(ENDPOINT, LORA, 0) > 0


async def test_no_more_are_under_way_than_may_be(books):
    primer = Primer()
    loading = Loading(primer, books(), at_once=3)
    adapters = [replace(LORA, task_id=number) for number in range(100, 120)]
    primer.go.clear()
    waiting = [asyncio.ensure_future(loading.load(ENDPOINT, adapter, 0)) for adapter in adapters]
    await until(lambda: primer.at_once == 3)
    primer.go.set()
    await asyncio.gather(*waiting)
    assert primer.most_at_once == 3
    assert len(primer.sent) == 20


async def test_without_redis_adapters_are_still_loaded(mortal_valkey):
    clients = [redis_client(mortal_valkey.url, 0.1) for _ in range(2)]
    primer = Primer()
    one, other = (Loading(primer, RedisSendings(client)) for client in clients)
    first = await one.load(ENDPOINT, LORA, 0)
    mortal_valkey.stop()
    second = await one.load(ENDPOINT, LORA, first)
    assert second > first
    assert await other.load(ENDPOINT, LORA, second) > second
    for client in clients:
        await client.aclose()


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    # As deep as a test's folder may be: longer than a socket's own path can be.
    folder = tmp_path / ("deep" * 30)
    folder.mkdir()
    return folder / "loader.sock"


async def served(primer: Primer, socket: Path) -> "asyncio.Task[None]":
    loading = Loading(primer, MemorySendings())
    server = asyncio.ensure_future(LoaderSocket(loading, {ENDPOINT.name: ENDPOINT}).serve(socket))
    await until(socket.is_socket)
    return server


async def ended(server: "asyncio.Task[None]") -> None:
    server.cancel()
    await asyncio.gather(server, return_exceptions=True)


async def test_workers_ask_the_control_process_and_share_its_sendings(socket):
    primer = Primer()
    primer.go.clear()
    server = await served(primer, socket)
    workers = [LoaderClient(socket) for _ in range(4)]
    waiting = [asyncio.ensure_future(worker.load(ENDPOINT, LORA, 0)) for worker in workers for _ in range(25)]
    await until(lambda: len(primer.sent) == 1)
    assert not any(future.done() for future in waiting)
    primer.go.set()
    assert len(set(await asyncio.gather(*waiting))) == 1
    assert len(primer.sent) == 1
    await ended(server)


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        pytest.param(EngineRefused("rank"), EngineRefused, id="a failure keeps its kind"),
        pytest.param(OSError("disk"), TargetUnavailable, id="a fault of ours is one of the target's"),
    ],
)
async def test_a_failure_reaches_the_worker(socket, failure, expected):
    primer = Primer()
    primer.failures = [failure]
    server = await served(primer, socket)
    worker = LoaderClient(socket)
    with pytest.raises(expected) as raised:
        await worker.load(ENDPOINT, LORA, 0)
    assert type(raised.value) is expected
    assert "disk" not in raised.value.message
    assert await worker.load(ENDPOINT, LORA, 0) > 0
    await ended(server)


async def test_an_unknown_endpoint_is_a_failure(socket):
    server = await served(Primer(), socket)
    with pytest.raises(TargetUnavailable):
        await LoaderClient(socket).load(OTHER, LORA, 0)
    await ended(server)


async def test_a_worker_without_a_control_process_fails_and_recovers_when_it_is_there(socket):
    worker = LoaderClient(socket)
    with pytest.raises(TargetUnavailable, match="cannot be reached"):
        await worker.load(ENDPOINT, LORA, 0)
    server = await served(Primer(), socket)
    assert await worker.load(ENDPOINT, LORA, 0) > 0
    await ended(server)


async def test_a_socket_left_by_a_dead_process_is_replaced(socket):
    await ended(await served(Primer(), socket))
    socket.chmod(0o777)
    loading = Loading(Primer(), MemorySendings())
    second = asyncio.ensure_future(LoaderSocket(loading, {ENDPOINT.name: ENDPOINT}).serve(socket))
    # Nobody but this gateway's user may give orders.
    await until(lambda: socket.stat().st_mode & 0o777 == 0o600)
    assert await LoaderClient(socket).load(ENDPOINT, LORA, 0) > 0
    await ended(second)


async def test_a_control_process_that_dies_fails_those_who_wait_and_the_next_finds_the_new_one(socket):
    async def dies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.close()

    here = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY)
    async with await asyncio.start_unix_server(dies, f"/proc/self/fd/{here}/{socket.name}"):
        worker = LoaderClient(socket)
        with pytest.raises(TargetUnavailable, match="went away"):
            await worker.load(ENDPOINT, LORA, 0)
    os.close(here)
    socket.unlink()
    server = await served(Primer(), socket)
    assert await worker.load(ENDPOINT, LORA, 0) > 0
    await ended(server)
