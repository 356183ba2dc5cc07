"""
A closed loop: so many callers, each asking again when it has its answer, all measured together.

Decides how callers start, what counts as a failure, and what is metered. Does not know what asking means.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from bench.callers.order import Order, Tally
from bench.cpu import Meter, machine_busy_ns

_FAILURES_KEPT = 5


class Wrong(Exception):
    """An answer that is not what was asked for; the text says how."""


class Answered(NamedTuple):
    """A complete answer. `first`: when its first content came, on the clock of time.perf_counter."""

    tokens: int
    first: float


Ask = Callable[[int, int], Awaitable[Answered]]
"""Ask question `number` as caller `caller`; raises Wrong or an error of the connection."""


async def closed_loop(order: Order, ask: Ask) -> Tally:
    """Carry out an order."""
    first_s: list[float] = []
    failures: list[str] = []
    tokens = errors = 0

    async def caller(me: int, questions: Sequence[int]) -> None:
        nonlocal tokens, errors
        await asyncio.sleep(order.spread_s * me / order.callers)
        for number in questions:
            began = time.perf_counter()
            try:
                answered = await ask(me, number)
            except (Wrong, OSError) as error:
                errors += 1
                failures.append(f"{type(error).__name__}: {error}")
                continue
            tokens += answered.tokens
            first_s.append(answered.first - began)

    ours = {*order.ours, os.getpid()}
    measured, all_ours, busy = Meter(order.measured or (os.getpid(),)), Meter(ours), machine_busy_ns()
    began = time.perf_counter()
    tasks = [asyncio.ensure_future(caller(me, range(me, order.requests, order.callers))) for me in range(order.callers)]
    _, unfinished = await asyncio.wait(tasks, timeout=order.limit_s)
    elapsed_s = time.perf_counter() - began
    spent, ours_ns, busy = measured.spent(), all_ours.spent().ran_ns, machine_busy_ns() - busy
    for task in unfinished:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if unfinished:
        failures.append(f"{len(unfinished)} callers had no answer when {order.limit_s:.0f} s were over")
    missing = order.requests - len(first_s) - errors
    for task in set(tasks) - unfinished:
        task.result()  # a fault of the benchmark itself is no measurement
    return Tally(
        answers=len(first_s),
        tokens=tokens,
        errors=errors + missing,
        failures=tuple(failures[:_FAILURES_KEPT]),
        first_s=tuple(first_s),
        elapsed_s=elapsed_s,
        ran_ns=spent.ran_ns,
        waited_ns=spent.waited_ns,
        foreign_ns=max(0, busy - ours_ns),
    )
