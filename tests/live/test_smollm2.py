"""
What a newcomer meets: the default base, its demo profiles, and the README's own lines.
"""

import doctest
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from build.scoring.demo import BASES, read_profiles
from tests.live.stack import Stack, running

SMOLLM2 = BASES["smollm2"]
PROFILES = {profile.full_name: profile for profile in read_profiles(SMOLLM2)}
README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("smollm2"), "--base", "smollm2") as stack:
        yield stack


def test_the_readme_shows_what_happens(smollm2: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter's session in the README, run as it stands."""
    monkeypatch.setenv("OPENAI_BASE_URL", smollm2.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", smollm2.api_key)
    [session] = re.findall(r"```console\n(.*?)```", README.read_text(), re.DOTALL)
    lines = [line for line in session.splitlines(keepends=True)]
    source = "".join(lines[next(i for i, line in enumerate(lines) if line.startswith(">>>")) :])
    test = doctest.DocTestParser().get_doctest(source, {}, "README", str(README), 0)
    assert len(test.examples) == 4
    results = doctest.DocTestRunner(optionflags=doctest.REPORT_ONLY_FIRST_FAILURE).run(test)
    assert results.failed == 0


@pytest.mark.parametrize("name", PROFILES)
def test_a_demo_profile_gives_its_example_plain_and_streamed(smollm2: Stack, name: str) -> None:
    profile = PROFILES[name]
    client = smollm2.openai({"acme": smollm2.api_key, "globex": smollm2.second_api_key}[profile.tenant])
    request = {
        "model": profile.name,
        "messages": [{"role": "user", "content": profile.example.prompt}],
        "temperature": 0,
    }
    plain = client.chat.completions.create(**request).choices[0].message.content
    chunks = client.chat.completions.create(**request, stream=True)
    streamed = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert plain == streamed == profile.example.answer
