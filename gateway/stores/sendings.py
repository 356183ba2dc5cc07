"""
The book of sendings in Redis: what was sent to which engine last, and who is sending now.

Decides the keys and what happens without Redis: this process's own book goes on, and its numbers stay comparable, since
every number is the time of the sending in microseconds, moved past whatever it has to exceed.
"""

import logging
import secrets
import time
from collections import OrderedDict

from redis.asyncio import Redis
from redis.exceptions import RedisError

_log = logging.getLogger(__name__)
# Long after any engine has forgotten, a hint is only a place taken.
_KEEP_S = 7 * 24 * 3600
_MOST_REMEMBERED = 65536


class RedisSendings:
    """A SendingBook. `tailor:sent:<endpoint>:<task>` holds a number, `tailor:sending:<endpoint>:<task>` who sends."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._own: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._tokens: dict[tuple[str, int], str] = {}
        self._away = False

    async def last(self, endpoint: str, task_id: int) -> int:
        own = self._own.get((endpoint, task_id), 0)
        try:
            shared = await self._redis.get(f"tailor:sent:{endpoint}:{task_id}")
        except RedisError as error:
            self._note(error)
            return own
        self._note(None)
        return max(own, int(shared or 0))

    async def claim(self, endpoint: str, task_id: int, hold_s: float) -> bool:
        token = secrets.token_hex(8)
        try:
            key = f"tailor:sending:{endpoint}:{task_id}"
            if not await self._redis.set(key, token, nx=True, px=int(hold_s * 1000)):
                return False
            self._tokens[endpoint, task_id] = token
        except RedisError as error:
            self._note(error)
        return True

    async def sent(self, endpoint: str, task_id: int, after: int) -> int:
        number = max(time.time_ns() // 1000, after + 1)
        self._own[endpoint, task_id] = number
        if len(self._own) > _MOST_REMEMBERED:
            self._own.popitem(last=False)
        try:
            await self._redis.set(f"tailor:sent:{endpoint}:{task_id}", number, ex=_KEEP_S)
        except RedisError as error:
            self._note(error)
        await self.give_up(endpoint, task_id)
        return number

    async def give_up(self, endpoint: str, task_id: int) -> None:
        token = self._tokens.pop((endpoint, task_id), None)
        if token is None:
            return
        key = f"tailor:sending:{endpoint}:{task_id}"
        try:
            # Not atomic, and need not be: taking a later holder's right away costs one more copy of the weights.
            if await self._redis.get(key) == token.encode():
                await self._redis.delete(key)
        except RedisError as error:
            self._note(error)

    def _note(self, error: RedisError | None) -> None:
        if (error is not None) != self._away:
            self._away = error is not None
            _log.warning("the shared book of sendings is %s", f"away: {error}" if error else "back")
