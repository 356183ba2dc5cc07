"""
What the Triton backend makes of an engine that fails: which failure, when, and that nothing is left behind.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb

from gateway.backends.prompt_tables import PromptTables
from gateway.backends.triton import TritonBackend, TritonLimits
from gateway.backends.triton_priming import TritonPrimer
from gateway.backends.triton_transport import GrpcTransport
from gateway.domain.adapter import LoraAdapter
from gateway.domain.errors import (
    AdapterCacheFull,
    AdapterNotLoaded,
    AnswerIncomplete,
    BackendFailed,
    DeadlineExceeded,
    EngineFailed,
    EngineQueueFull,
    EngineRefused,
    TargetUnavailable,
)
from gateway.domain.event import Delta, Event, Finished
from gateway.domain.job import Endpoint, Job, Target
from gateway.domain.manifest import Dtype
from gateway.loading import Loading
from gateway.ports import AdapterLoader
from gateway.stores.memory_sendings import MemorySendings
from gateway.tokens.tokenizer import BaseTokenizer
from tests.contract.backends.faulty_triton import Abort, Answer, FaultyTriton, error, faulty_triton, tokens
from tests.contract.backends.worlds import TINY, profile
from tests.unit.domain.making import BASE, MANIFEST, job
from tests.waiting import until

CODEC = BaseTokenizer.load(TINY)
MISS = "LoRA task 7 not found in cache. Please send LoRA weights with request"
PATIENT = TritonLimits(10.0, 10.0, 30.0)
QUICK = TritonLimits(first_token_s=0.2, gap_s=0.2, total_s=10.0)


def answers(*steps: pb.ModelStreamInferResponse | Exception | float) -> Answer:
    """The same for every request; a number is a silence in seconds."""

    async def play(_: pb.ModelInferRequest) -> AsyncIterator[pb.ModelStreamInferResponse]:
        for step in steps:
            if isinstance(step, float):
                await asyncio.sleep(step)
            elif isinstance(step, Exception):
                raise step
            else:
                yield step

    return play


def lora(folder: Path) -> LoraAdapter:
    (folder / "weights").write_bytes(bytes(4 * 8))
    (folder / "config").write_bytes(bytes(4 * 3))
    return LoraAdapter(7, 1, 8, 3, Dtype.FLOAT32, folder / "weights", folder / "config")


@asynccontextmanager
async def asked(
    answer: Answer, limits: TritonLimits = PATIENT, loader: AdapterLoader | None = None
) -> AsyncIterator[tuple[FaultyTriton, TritonBackend, Target]]:
    async with faulty_triton(answer) as triton:
        transports = {"t": GrpcTransport(triton.address, 1)}
        loading = loader or Loading(TritonPrimer(transports), MemorySendings())
        backend = TritonBackend(transports, {"tiny": CODEC}, loading, PromptTables(2**20), limits)
        watch = asyncio.ensure_future(backend.watch_progress())
        target = Target(Endpoint("t", triton.address, MANIFEST))
        yield triton, backend, target
        assert backend.in_flight(target.endpoint) == 0
        watch.cancel()
        await transports["t"].close()


async def collect(backend: TritonBackend, target: Target, wanted: Job) -> list[Event]:
    return [event async for batch in backend.generate(wanted, target) for event in batch]


BASE_JOB = job(profile=BASE)
INTERNAL = Abort(grpc.StatusCode.INTERNAL, "stub died")
GONE = Abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")


@pytest.mark.parametrize(
    ("steps", "failure"),
    [
        pytest.param([error("Maximum queue size of 8 has been reached")], EngineQueueFull, id="its queue is full"),
        pytest.param([error("Prompt length (9) exceeds maximum input length (8)")], EngineRefused, id="it refuses"),
        pytest.param([error("who knows")], EngineFailed, id="it says something unheard of"),
        pytest.param([INTERNAL], EngineFailed, id="the call fails"),
        pytest.param([GONE], TargetUnavailable, id="it goes away"),
        pytest.param([], AnswerIncomplete, id="the call ends in silence"),
        pytest.param([5.0], DeadlineExceeded, id="no token comes"),
    ],
)
async def test_failures_before_the_first_token_are_told_apart(steps, failure):
    async with asked(answers(*steps), QUICK) as (_, backend, target):
        with pytest.raises(failure) as failed:
            await anext(backend.generate(BASE_JOB, target))
        assert type(failed.value) is failure


@pytest.mark.parametrize(
    ("steps", "failure"),
    [
        pytest.param([error("who knows")], EngineFailed, id="it says something"),
        pytest.param([INTERNAL], EngineFailed, id="the call fails"),
        pytest.param([GONE], TargetUnavailable, id="it goes away"),
        pytest.param([], AnswerIncomplete, id="the call ends in silence"),
        pytest.param([5.0], DeadlineExceeded, id="no more tokens come"),
    ],
)
async def test_failures_in_the_middle_come_after_what_was_said(steps, failure):
    async with asked(answers(tokens(40, 41), *steps), TritonLimits(5.0, 0.2, 10.0)) as (_, backend, target):
        generation = backend.generate(BASE_JOB, target)
        assert any(isinstance(event, Delta) for event in await anext(generation))
        with pytest.raises(failure) as failed:
            await anext(generation)
        assert type(failed.value) is failure


async def test_an_answer_that_ends_with_nothing_but_an_end_is_whole():
    async with asked(answers(tokens(40), tokens(final=True))) as (_, backend, target):
        events = await collect(backend, target, BASE_JOB)
    assert isinstance(events[-1], Finished)
    assert events[-1].completion_tokens == 1


async def test_a_second_end_id_ends_the_answer_and_the_engines_work():
    codec = BaseTokenizer.load(TINY)
    codec.eos_ids = (5, 44)
    async with faulty_triton(answers(tokens(40), tokens(44, 41), 5.0)) as triton:
        transports = {"t": GrpcTransport(triton.address, 1)}
        loading = Loading(TritonPrimer(transports), MemorySendings())
        backend = TritonBackend(transports, {"tiny": codec}, loading, PromptTables(2**20), PATIENT)
        events = await collect(backend, Target(Endpoint("t", triton.address, MANIFEST)), BASE_JOB)
        assert isinstance(events[-1], Finished)
        await until(lambda: triton.left == 1)
        await transports["t"].close()


async def test_a_caller_who_leaves_ends_the_engines_work():
    async with asked(answers(tokens(40), 60.0)) as (triton, backend, target):
        generation = backend.generate(BASE_JOB, target)
        await anext(generation)
        await generation.aclose()
        await until(lambda: triton.left == 1)


async def test_a_caller_who_leaves_before_the_first_token_ends_it_too():
    async with asked(answers(60.0)) as (triton, backend, target):
        task = asyncio.ensure_future(collect(backend, target, BASE_JOB))
        await until(lambda: len(triton.seen) == 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: triton.left == 1)


async def test_no_two_attempts_have_the_same_id_and_all_begin_with_a_letter():
    async with asked(answers(tokens(40, final=True))) as (triton, backend, target):
        for _ in range(20):
            await collect(backend, target, BASE_JOB)
    ids = {request.id for request in triton.seen}
    assert len(ids) == 20
    assert all(name[0].isalpha() for name in ids)


async def test_weights_are_sent_before_the_first_use_and_not_again(tmp_path):
    wanted = job(profile=profile("p", lora(tmp_path)))
    async with asked(answers(tokens(40, final=True))) as (triton, backend, target):
        for _ in range(3):
            await collect(backend, target, wanted)
        assert triton.weights_sent() == 1
        assert len(triton.seen) == 4


async def test_a_miss_is_answered_with_the_weights_and_shows_nobody(tmp_path):
    wanted = job(profile=profile("p", lora(tmp_path)))
    forgotten = iter([False, True, False, True, True])

    async def answer(request: pb.ModelInferRequest) -> AsyncIterator[pb.ModelStreamInferResponse]:
        primed = any(tensor.name == "lora_weights" for tensor in request.inputs)
        yield error(MISS) if not primed and next(forgotten, False) else tokens(40, final=True)

    async with asked(answer) as (triton, backend, target):
        for expected in (1, 2, 4):
            events = await collect(backend, target, wanted)
            assert isinstance(events[-1], Finished)
            assert triton.weights_sent() == expected


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        pytest.param(MISS, AdapterNotLoaded, id="an adapter that is evicted again and again"),
        pytest.param("PEFT Cache is full. Could not store taskId=7", AdapterCacheFull, id="no room for it"),
        pytest.param("Maximum queue size of 8 has been reached", EngineQueueFull, id="no place in the queue"),
    ],
)
async def test_waiting_for_a_place_ends_when_the_first_token_is_due(tmp_path, text, failure):
    wanted = job(profile=profile("p", lora(tmp_path)))

    async def answer(request: pb.ModelInferRequest) -> AsyncIterator[pb.ModelStreamInferResponse]:
        primed = any(tensor.name == "lora_weights" for tensor in request.inputs)
        yield tokens(40, final=True) if primed else error(text)

    async with asked(answer, QUICK) as (triton, backend, target):
        with pytest.raises(failure):
            await anext(backend.generate(wanted, target))
        assert len(triton.seen) > 2


class NeverLoads:
    """A loader that has hung up on everybody."""

    async def load(self, endpoint: Endpoint, adapter: LoraAdapter, missed: int) -> int:
        await asyncio.Event().wait()
        return 0


async def test_a_loader_that_never_answers_does_not_keep_a_caller_past_the_first_tokens_time(tmp_path):
    wanted = job(profile=profile("p", lora(tmp_path)))
    async with asked(answers(), QUICK, NeverLoads()) as (_, backend, target):
        with pytest.raises(DeadlineExceeded):
            await anext(backend.generate(wanted, target))


async def test_a_triton_that_accepts_and_says_nothing_does_not_either():
    connections: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda reader, writer: connections.append(writer), "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    transports = {"t": GrpcTransport(address, 1)}
    loading = Loading(TritonPrimer(transports), MemorySendings())
    backend = TritonBackend(transports, {"tiny": CODEC}, loading, PromptTables(2**20), QUICK)
    with pytest.raises(BackendFailed):
        await asyncio.wait_for(anext(backend.generate(BASE_JOB, Target(Endpoint("t", address, MANIFEST)))), 5)
    assert not await transports["t"].ready("tensorrt_llm", 0.2)
    await transports["t"].close()
    for writer in connections:
        writer.close()
    server.close()


async def test_a_failed_loading_is_the_requests_failure(tmp_path):
    wanted = job(profile=profile("p", lora(tmp_path)))
    refusal = "Invalid low_rank (128). low_rank must be smaller than mMaxLowRank (64)"
    async with asked(answers(error(refusal))) as (triton, backend, target):
        with pytest.raises(EngineRefused):
            await anext(backend.generate(wanted, target))
        assert len(triton.seen) == 1
