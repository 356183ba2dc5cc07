"""
What only an engine has: adapters that come and go in its cache, virtual tokens, and answers that stay right meanwhile.
"""

import asyncio

from tests.contract.backends.test_backend import end_of, text_of, whole
from tests.contract.backends.worlds import ADAPTERS, ANSWER, triton_world
from tests.waiting import until


async def test_more_adapters_than_the_cache_holds_all_answer_right(engine, running_triton):
    async with triton_world(engine, running_triton.grpc) as world:
        alone = {}
        for name in ADAPTERS:
            alone[name] = text_of(await whole(world, world.job(profile=world.profiles[name], max_tokens=24)))
        assert len(set(alone.values())) == len(ADAPTERS)
        for _ in range(3):
            for name in ADAPTERS:
                events = await whole(world, world.job(profile=world.profiles[name], max_tokens=24))
                assert text_of(events) == alone[name], name
        together = [name for name in ADAPTERS for _ in range(6)]
        answers = await asyncio.gather(
            *(whole(world, world.job(profile=world.profiles[name], max_tokens=24)) for name in together)
        )
        assert [text_of(events) for events in answers] == [alone[name] for name in together]


async def test_virtual_tokens_answer_as_they_were_tuned_to(engine, running_triton):
    prompt = "firm cedar closed . item shovel closed . firm falcon busy . firm delta open . status of firm falcon ?"
    async with triton_world(engine, running_triton.grpc) as world:
        job = world.job(prompt, world.profiles["context-prompt"])
        assert job.prompt_tokens == len(job.prompt_ids) + job.virtual_tokens
        assert text_of(await whole(world, job)) == "firm falcon busy ."


async def test_an_adapter_loaded_by_one_worker_is_used_by_another_that_forgot(engine, running_triton):
    async with triton_world(engine, running_triton.grpc) as first, triton_world(engine, running_triton.grpc) as second:
        assert text_of(await whole(first, first.job())) == ANSWER
        assert text_of(await whole(second, second.job())) == ANSWER


async def test_health_is_seen(engine, running_triton):
    async with triton_world(engine, running_triton.grpc) as world:
        assert not world.backend.ready(world.endpoint)
        watch = asyncio.ensure_future(world.backend.watch_health())
        await until(lambda: world.backend.ready(world.endpoint))
        assert not world.backend.ready(world.absent)
        watch.cancel()


async def test_the_engines_slots_are_free_again_after_callers_left(engine, running_triton):
    async with triton_world(engine, running_triton.grpc) as world:
        running = [world.backend.generate(world.job(max_tokens=400), world.target) for _ in range(8)]
        await asyncio.gather(*(anext(generation) for generation in running))
        for generation in running:
            await generation.aclose()
        await until(lambda: running_triton.metric("nv_trt_llm_request_metrics", "active") == 0)
        assert end_of(await whole(world, world.job(max_tokens=1))).completion_tokens == 1
