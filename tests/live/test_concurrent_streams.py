"""
64 streams over all profiles at once give the text that each gives alone.
"""

import asyncio

from openai import AsyncOpenAI

from build.recipes.recipe import read_held_out
from build.scoring.demo import BASES, read_profiles
from build.scoring.plain_peft import PlainPeft
from tests.live.judging import Verdicts
from tests.live.stack import Stack

TINY = BASES["tiny"]


async def streamed(client: AsyncOpenAI, model: str, prompt: str) -> str:
    chunks = await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": prompt}], temperature=0, stream=True
    )
    parts = [choice.delta.content or "" async for chunk in chunks for choice in chunk.choices]
    return "".join(parts)


async def test_64_streams_together_say_what_each_says_alone(stack: Stack) -> None:
    clients = {"acme": stack.async_openai(), "globex": stack.async_openai(stack.second_api_key)}
    profiles = read_profiles(TINY)
    calls = []
    for index in range(64):
        profile = profiles[index % len(profiles)]
        prompt = read_held_out(TINY.artefacts, profile.task)[index].prompt
        model = "tiny" if index % 8 == 0 else profile.name
        calls.append((profile, clients[profile.tenant], model, prompt))
    alone = [await streamed(client, model, prompt) for _, client, model, prompt in calls]
    together = await asyncio.gather(*(streamed(client, model, prompt) for _, client, model, prompt in calls))
    verdicts = Verdicts()
    for (profile, _, model, prompt), one, other in zip(calls, alone, together, strict=True):
        if one == other:
            verdicts.same += 1
            continue
        adapters = [] if model == "tiny" else [TINY.artefacts / adapter for adapter in profile.adapters]
        verdicts.compare(PlainPeft(TINY.checkpoint, adapters), prompt, other, one)
    assert verdicts.faults == []
    assert verdicts.same + len(verdicts.ties) == 64
