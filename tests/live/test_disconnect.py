"""
A caller who leaves takes the engine's work along, and nobody else's.
"""

import asyncio

import pytest

from tests.live.engine_metrics import settles
from tests.live.stack import Stack

LONG = {
    "model": "tiny",
    # Random sampling with no end in sight: without a disconnect this runs for hundreds of tokens.
    "messages": [{"role": "user", "content": "hello"}],
    "max_tokens": 480,
    "temperature": 2,
    "extra_body": {"min_tokens": 480},
}


async def test_leaving_in_the_middle_frees_the_engines_slot(stack: Stack) -> None:
    client = stack.async_openai()
    chunks = await client.chat.completions.create(**LONG, stream=True)
    async for chunk in chunks:
        if chunk.choices and chunk.choices[0].delta.content:
            break
    await chunks.close()
    assert await settles(stack, "nv_trt_llm_request_metrics", "active", 0)
    assert await settles(stack, "nv_trt_llm_kv_cache_block_metrics", "used", 0)


async def test_leaving_a_plain_request_frees_the_engines_slot(stack: Stack) -> None:
    client = stack.async_openai()
    task = asyncio.create_task(client.chat.completions.create(**LONG))
    assert await settles(stack, "nv_trt_llm_request_metrics", "active", 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await settles(stack, "nv_trt_llm_request_metrics", "active", 0)


async def test_a_neighbour_of_those_who_leave_gets_its_whole_answer(stack: Stack) -> None:
    client = stack.async_openai()
    staying = asyncio.create_task(client.chat.completions.create(**LONG))
    for _ in range(3):
        chunks = await client.chat.completions.create(**LONG, stream=True)
        await anext(aiter(chunks))
        await chunks.close()
    answer = await staying
    assert answer.usage.completion_tokens == 480
    assert answer.choices[0].finish_reason == "length"
