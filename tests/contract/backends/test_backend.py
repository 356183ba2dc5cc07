"""
The Backend port: what every kind of backend promises, tested on each.
"""

import asyncio

import pytest

from gateway.domain.errors import TargetUnavailable
from gateway.domain.event import Delta, Event, Finished, FinishReason
from gateway.domain.job import Job, Target
from tests.contract.backends.worlds import ANSWER, World


async def whole(world: World, job: Job, target: Target | None = None) -> list[Event]:
    """All events; every batch must hold some, and nothing may follow an answer's end."""
    events: list[Event] = []
    async for batch in world.backend.generate(job, target or world.target):
        assert batch
        for event in batch:
            assert not any(isinstance(earlier, Finished) and earlier.index == event.index for earlier in events)
            events.append(event)
    assert sorted(event.index for event in events if isinstance(event, Finished)) == list(range(job.request.n))
    return events


def text_of(events: list[Event], index: int = 0) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta) and event.index == index)


def end_of(events: list[Event], index: int = 0) -> Finished:
    return next(event for event in events if isinstance(event, Finished) and event.index == index)


async def test_an_answer_arrives_in_parts_and_ends_once(world):
    events = await whole(world, world.job())
    assert text_of(events) == ANSWER
    assert end_of(events).reason is FinishReason.STOP
    assert len([event for event in events if isinstance(event, Delta)]) > 3


async def test_no_more_tokens_come_than_were_asked_for(world):
    events = await whole(world, world.job(max_tokens=3))
    assert end_of(events) == Finished(0, FinishReason.LENGTH, 3)
    assert ANSWER.startswith(text_of(events))
    assert text_of(events)


async def test_a_stop_string_cuts_the_answer_and_is_never_shown(world):
    events = await whole(world, world.job(stop=(' "sku', "never")))
    assert text_of(events) == ANSWER[: ANSWER.index(' "sku')]
    assert end_of(events).reason is FinishReason.STOP


async def test_several_answers_each_end_once(world):
    events = await whole(world, world.job(n=3))
    assert [text_of(events, index) for index in range(3)] == [ANSWER] * 3
    assert {end_of(events, index).reason for index in range(3)} == {FinishReason.STOP}


async def test_every_token_of_the_text_has_a_logprob_where_they_are_asked_for(world):
    events = await whole(world, world.job(logprobs=True, stop=('"n"',)))
    entries = [entry for event in events if isinstance(event, Delta) for entry in event.logprobs]
    assert b"".join(entry.bytes for entry in entries).decode().startswith(text_of(events))
    assert all(entry.logprob <= 0 for entry in entries)
    assert not any(event.logprobs for event in await whole(world, world.job()) if isinstance(event, Delta))


async def test_many_at_once_get_what_each_gets_alone(world):
    prompts = ["we need pillow in cairo , make it 19 .", "who ?", "firm cedar closed .", "x"] * 4
    alone = {prompt: text_of(await whole(world, world.job(prompt))) for prompt in set(prompts)}
    together = await asyncio.gather(*(whole(world, world.job(prompt)) for prompt in prompts))
    assert [text_of(events) for events in together] == [alone[prompt] for prompt in prompts]


async def test_requests_under_way_are_counted(world):
    assert world.backend.in_flight(world.endpoint) == 0
    running = [world.backend.generate(world.job(), world.target) for _ in range(3)]
    for generation in running:
        await anext(generation)
    assert world.backend.in_flight(world.endpoint) == 3
    assert world.backend.in_flight(world.absent) == 0
    for generation in running:
        await generation.aclose()
    assert world.backend.in_flight(world.endpoint) == 0


async def test_nothing_is_held_wherever_it_is_cancelled(world):
    for turns in range(25):
        task = asyncio.ensure_future(whole(world, world.job(max_tokens=4)))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert world.backend.in_flight(world.endpoint) == 0, turns
    assert text_of(await whole(world, world.job())) == ANSWER


async def test_a_target_that_cannot_be_reached_fails_before_anything_is_said(world):
    generation = world.backend.generate(world.job(), Target(world.absent))
    with pytest.raises(TargetUnavailable):
        await anext(generation)
    assert world.backend.in_flight(world.absent) == 0


async def test_an_endpoint_is_believed_to_hold_an_adapter_once_it_has_answered_with_it(world):
    adapter = world.tuned.lora
    assert not world.backend.resident(world.endpoint, adapter)
    await whole(world, world.job(max_tokens=1))
    assert world.backend.resident(world.endpoint, adapter)
    assert not world.backend.resident(world.absent, adapter)


async def test_the_base_alone_needs_no_adapter(world):
    events = await whole(world, world.job(profile=world.profiles["base"], max_tokens=2))
    assert end_of(events).completion_tokens <= 2
