"""
The use case: get an adapter into an engine, once, however many ask.

Decides that one sending serves everybody who waits for it, in this process and over all gateways. Does not know how
weights travel, nor who asks.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable

from gateway.domain.adapter import LoraAdapter
from gateway.domain.errors import DeadlineExceeded
from gateway.domain.job import Endpoint
from gateway.ports import AdapterPrimer, SendingBook

_POLL_S = 0.03


class Loading:
    """
    An AdapterLoader.

    `count` is told endpoint and outcome of each sending. `at_once` bounds the sendings under way to one endpoint, and
    with them the weights in memory. `hold_s`: how long others wait for a holder of that right who may have died,
    less than a caller waits for a first token; one that is only slow costs a second copy, which engines ignore.
    """

    def __init__(
        self,
        primer: AdapterPrimer,
        book: SendingBook,
        *,
        count: Callable[[str, str], None] = lambda endpoint, outcome: None,
        at_once: int = 2,
        patience_s: float = 120.0,
        hold_s: float = 20.0,
    ) -> None:
        self._primer = primer
        self._book = book
        self._count = count
        # One for each endpoint: an engine that hangs must not keep adapters from the others.
        self._at_once: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(at_once))
        self._patience_s = patience_s
        self._hold_s = hold_s
        self._under_way: dict[tuple[str, int], asyncio.Task[int]] = {}

    async def load(self, endpoint: Endpoint, adapter: LoraAdapter, missed: int) -> int:
        key = endpoint.name, adapter.task_id
        while True:
            task = self._under_way.get(key)
            # One that is done has told its number already: to wait for it again would never let go of the loop.
            if task is None or task.done():
                task = asyncio.create_task(self._load(endpoint, adapter, missed))
                self._under_way[key] = task
                task.add_done_callback(lambda done: self._over(key, done))
            # Shielded: whoever leaves must not take away what others wait for.
            sending = await asyncio.shield(task)
            if sending > missed:
                return sending

    def _over(self, key: tuple[str, int], done: asyncio.Task[int]) -> None:
        if self._under_way.get(key) is done:
            del self._under_way[key]
        if not done.cancelled():
            done.exception()  # seen, even where everybody who waited has left

    async def _load(self, endpoint: Endpoint, adapter: LoraAdapter, missed: int) -> int:
        try:
            async with asyncio.timeout(self._patience_s):
                while True:
                    last = await self._book.last(endpoint.name, adapter.task_id)
                    if last > missed:
                        return last
                    if await self._book.claim(endpoint.name, adapter.task_id, self._hold_s):
                        return await self._send(endpoint, adapter, missed)
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise DeadlineExceeded("the engine did not take the adapter's weights in time") from None

    async def _send(self, endpoint: Endpoint, adapter: LoraAdapter, missed: int) -> int:
        try:
            # Whoever held the right before may have sent it since we looked.
            last = await self._book.last(endpoint.name, adapter.task_id)
            if last > missed:
                await self._book.give_up(endpoint.name, adapter.task_id)
                return last
            async with self._at_once[endpoint.name]:
                await self._primer.prime(endpoint, adapter)
            self._count(endpoint.name, "loaded")
            return await self._book.sent(endpoint.name, adapter.task_id, max(last, missed))
        except BaseException as error:
            self._count(endpoint.name, type(error).__name__)
            await self._book.give_up(endpoint.name, adapter.task_id)
            raise
