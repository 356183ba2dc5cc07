"""
An engine that holds two adapters at a time serves all of them: evictions and a full cache cost time, never a request.
"""

import asyncio
from collections.abc import Iterator

import pytest

from build.recipes.recipe import read_held_out
from build.scoring.demo import BASES, read_profiles
from tests.live.stack import Stack, running

TINY = BASES["tiny"]
# Two of tiny's adapters over all projections are some 750 kB of float32 together, and a third does not fit.
CACHE_BYTES = 780_000


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("small")
    with running(directory, "--engine", f"lora-cache-bytes={CACHE_BYTES}", "--workers", "2") as stack:
        yield stack


@pytest.mark.parametrize("together", [1, 28])
async def test_a_round_robin_over_all_adapters_never_fails_a_request(small: Stack, together: int) -> None:
    clients = {"acme": small.async_openai(), "globex": small.async_openai(small.second_api_key)}
    profiles = read_profiles(TINY)
    gate = asyncio.Semaphore(together)

    async def ask(index: int) -> tuple[str, str]:
        profile = profiles[index % len(profiles)]
        example = read_held_out(TINY.artefacts, profile.task)[index // len(profiles)]
        async with gate:
            answer = await clients[profile.tenant].chat.completions.create(
                model=profile.name, messages=[{"role": "user", "content": example.prompt}], temperature=0
            )
        return answer.choices[0].message.content or "", example.answer

    pairs = await asyncio.gather(*(ask(index) for index in range(4 * len(profiles))))
    assert sum(served == right for served, right in pairs) >= len(pairs) - 1
