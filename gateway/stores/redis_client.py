"""
How this gateway speaks to Redis: short waits, and never a second try behind our back.

redis-py repeats a command by default when its reply was lost, which charges twice and waits for seconds.
"""

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff


def redis_client(url: str, timeout_s: float) -> Redis:
    """A client whose every call ends within about `timeout_s`, with an error rather than a retry."""
    return Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        retry_on_timeout=False,
        max_connections=64,
    )
