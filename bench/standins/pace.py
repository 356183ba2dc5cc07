"""
The steps of an engine: all streams advance together, once in every interval.

Decides when a step is due and how many are made up for after a delay. Does not know what a step sends.
"""

import asyncio
from typing import Protocol


class Paced(Protocol):
    """Something that advances."""

    def advance(self, steps: int) -> None:
        """`steps` are due now: 1, or more where this process came too late for some."""
        ...


class Pace:
    """
    A clock of steps. `steps`: those that were due while anybody was a member; `late_steps`: those of them that could
    not be made at their time, and were made up for at the next.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._members: dict[Paced, None] = {}
        self._empty = asyncio.Event()
        self.steps = 0
        self.late_steps = 0

    def join(self, member: Paced) -> None:
        self._members[member] = None
        self._empty.clear()

    def leave(self, member: Paced) -> None:
        self._members.pop(member, None)
        if not self._members:
            self._empty.set()

    async def emptied(self) -> None:
        """Wait until the last member has left."""
        await self._empty.wait()

    async def run(self) -> None:
        """Step until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._interval_s
        while True:
            await asyncio.sleep(due - loop.time())
            steps = max(1, 1 + int((loop.time() - due) / self._interval_s))
            due += steps * self._interval_s
            if self._members:
                self.steps += steps
                self.late_steps += steps - 1
                for member in list(self._members):
                    member.advance(steps)
