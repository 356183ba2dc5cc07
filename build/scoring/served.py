"""
What a running gateway answers to the same held-out sets, through the official OpenAI client.

Decides: how the keys of a local run are found (its `env` file), and how many questions wait at once.
Does not know: what is right (exact.py).
"""

import shlex
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from openai import OpenAI

from build.scoring.demo import ProfileDocument

_KEYS = {"acme": "OPENAI_API_KEY", "globex": "SECOND_API_KEY"}
_AT_ONCE = 8


class Served:
    """A gateway that `tailor up` runs, by its `env` file."""

    def __init__(self, env: Path) -> None:
        """
        Raises:
            OSError: nothing runs there.
        """
        pairs = (line.removeprefix("export ").split("=", 1) for line in env.read_text(encoding="utf-8").splitlines())
        self._env = {name: "".join(shlex.split(value)) for name, value in pairs}

    def answers(self, profile: ProfileDocument, prompts: Sequence[str], *, max_new_tokens: int) -> list[str]:
        """The greedy answer to each user message, in order."""
        client = OpenAI(base_url=self._env["OPENAI_BASE_URL"], api_key=self._env[_KEYS[profile.tenant]], timeout=600)

        def ask(prompt: str) -> str:
            answer = client.chat.completions.create(
                model=profile.name,
                messages=[{"role": "user", "content": prompt}],
                temperature=0,
                max_tokens=max_new_tokens,
            )
            return answer.choices[0].message.content or ""

        with client, ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(ask, prompts))
