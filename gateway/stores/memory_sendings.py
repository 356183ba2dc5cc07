"""
The book of sendings in one process's memory: for tests, examples and a gateway of one process.

The same promises as the book in Redis, but that nobody else reads it.
"""

import time
from collections.abc import Callable


class MemorySendings:
    """A SendingBook. `clock`: seconds that only grow."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._numbers: dict[tuple[str, int], int] = {}
        self._claimed_until: dict[tuple[str, int], float] = {}

    async def last(self, endpoint: str, task_id: int) -> int:
        return self._numbers.get((endpoint, task_id), 0)

    async def claim(self, endpoint: str, task_id: int, hold_s: float) -> bool:
        now = self._clock()
        if self._claimed_until.get((endpoint, task_id), now) > now:
            return False
        self._claimed_until[endpoint, task_id] = now + hold_s
        return True

    async def sent(self, endpoint: str, task_id: int, after: int) -> int:
        number = max(self._numbers.get((endpoint, task_id), 0), after) + 1
        self._numbers[endpoint, task_id] = number
        await self.give_up(endpoint, task_id)
        return number

    async def give_up(self, endpoint: str, task_id: int) -> None:
        self._claimed_until.pop((endpoint, task_id), None)
