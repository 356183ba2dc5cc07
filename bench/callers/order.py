"""
What a calling process is told to do, and what it tells afterwards.

Decides the shape of both. Times are seconds, processor time is nanoseconds.
"""

import msgspec

from bench.prompts import ChatTurn


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """
    `requests` in all, by `callers` who each wait for an answer before they ask again; they begin spread over
    `spread_s`. Every answer must have exactly `tokens` tokens and, where `text` is given, say just that.

    `measured`: processes whose cost is asked for; none means the caller's own. `ours`: all processes of the run, so
    that everybody else's work can be told. `limit_s`: what is unfinished by then has failed.
    """

    port: int
    model: str = ""
    key: str = ""
    stream: bool
    tokens: int
    callers: int
    requests: int
    spread_s: float
    chats: tuple[tuple[ChatTurn, ...], ...]
    text: str | None = None
    measured: tuple[int, ...] = ()
    ours: tuple[int, ...] = ()
    limit_s: float = 60.0


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """
    `first_s`: from each request's first byte sent to its first content received. `ran_ns`, `waited_ns`: of the measured
    processes. `foreign_ns`: processor time of whatever is not of this run. `failures`: the first few, in words.
    """

    answers: int
    tokens: int
    errors: int
    failures: tuple[str, ...]
    first_s: tuple[float, ...]
    elapsed_s: float
    ran_ns: int
    waited_ns: int
    foreign_ns: int
