"""
Waiting, in tests, for what happens elsewhere: no longer than needed, and never for ever.
"""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    """
    Return as soon as the condition holds.

    Raises:
        TimeoutError: it did not come to hold.
    """
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - what happens in another process or task sets no event here
            await asyncio.sleep(0.005)
