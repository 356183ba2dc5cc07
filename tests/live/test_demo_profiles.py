"""
What each demo profile answers through the gateway, Triton and the engine is what plain peft answers.
"""

import asyncio

import pytest

from build.recipes.recipe import read_held_out
from build.scoring.demo import BASES, read_profiles
from build.scoring.exact import exact_match
from build.scoring.plain_peft import PlainPeft
from tests.live.judging import Verdicts
from tests.live.stack import Stack

TINY = BASES["tiny"]
PROFILES = {profile.full_name: profile for profile in read_profiles(TINY)}
EXAMPLES = 24


def key_of(stack: Stack, tenant: str) -> str:
    return {"acme": stack.api_key, "globex": stack.second_api_key}[tenant]


@pytest.mark.parametrize("name", PROFILES)
async def test_a_demo_profile_answers_as_plain_peft_does(stack: Stack, name: str) -> None:
    profile = PROFILES[name]
    rows = read_held_out(TINY.artefacts, profile.task)[:EXAMPLES]
    client = stack.async_openai(key_of(stack, profile.tenant))

    async def ask(prompt: str) -> str:
        answer = await client.chat.completions.create(
            model=profile.name, messages=[{"role": "user", "content": prompt}], temperature=0
        )
        assert answer.choices[0].finish_reason == "stop"
        return answer.choices[0].message.content or ""

    served = await asyncio.gather(*(ask(row.prompt) for row in rows))
    judge = PlainPeft(TINY.checkpoint, [TINY.artefacts / adapter for adapter in profile.adapters])
    expected = judge.answers([row.prompt for row in rows], max_new_tokens=TINY.max_new_tokens)
    verdicts = Verdicts()
    for row, one, other in zip(rows, served, expected, strict=True):
        verdicts.compare(judge, row.prompt, one, other)
    assert verdicts.faults == []
    assert exact_match(served, rows).share >= 0.95


@pytest.mark.parametrize("name", PROFILES)
def test_a_stream_gives_the_plain_answer(stack: Stack, name: str) -> None:
    profile = PROFILES[name]
    client = stack.openai(key_of(stack, profile.tenant))
    example = profile.example
    request = {
        "model": profile.name,
        "messages": [{"role": "user", "content": example.prompt}],
        "temperature": 0,
    }
    plain = client.chat.completions.create(**request)
    chunks = list(client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True}))
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == plain.choices[0].message.content == example.answer
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
    assert reasons[-1] == "stop"
    assert reasons.count(None) == len(reasons) - 1
    assert chunks[-1].usage == plain.usage


def test_virtual_tokens_are_reported_apart(stack: Stack) -> None:
    """The same prompt counts the same with and without a profile's virtual tokens."""
    client = stack.openai()
    usage = {}
    for model in ("tiny", "support-bot"):
        answer = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "status of user emil ?"}], max_tokens=1
        )
        usage[model] = answer.usage
    assert usage["tiny"].prompt_tokens == usage["support-bot"].prompt_tokens
    assert usage["tiny"].prompt_tokens_details.virtual_tokens == 0
    assert usage["support-bot"].prompt_tokens_details.virtual_tokens == 16
    assert usage["support-bot"].total_tokens == usage["support-bot"].prompt_tokens + 1
