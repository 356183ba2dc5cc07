"""
The rounds of a run: in each, every cell asks all of its targets one after the other.

Decides the order (A B C A B C …, so that what the machine does meanwhile meets all alike) and what is asked. Does not
add anything up.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from bench import plan
from bench.callers.order import Order, Tally
from bench.plan import Cell, Target
from bench.prompts import chats
from bench.stack import Stack


class Sample(NamedTuple):
    """One target in one cell of one round."""

    cell: Cell
    target: Target
    round: int
    tally: Tally


Progress = Callable[[str], None]
"""Told before each sample what is measured."""


def measure(stack: Stack, cells: Sequence[Cell], rounds: int, seed: int, progress: Progress) -> list[Sample]:
    """
    All samples, after each target has answered each cell's traffic once unmeasured.

    Raises:
        StopAsked, ServiceDied, LocalRunError: the run ended.
    """
    for cell in cells:
        for target in _targets(stack, cell):
            progress(f"warming up · {cell.name} · {target}")
            stack.call(cell, target, _order(plan.warm_up(cell), seed, -1))
    samples = []
    for number in range(rounds):
        for cell in cells:
            for target in _targets(stack, cell):
                progress(f"round {number + 1} of {rounds} · {cell.name} · {target}")
                samples.append(Sample(cell, target, number, stack.call(cell, target, _order(cell, seed, number))))
    return samples


def calls(stack: Stack, cells: Sequence[Cell], rounds: int) -> int:
    """How many times `progress` will be told."""
    return (rounds + 1) * sum(len(_targets(stack, cell)) for cell in cells)


def _targets(stack: Stack, cell: Cell) -> list[Target]:
    return [target for target in cell.targets if stack.has(target)]


def _order(cell: Cell, seed: int, number: int) -> Order:
    # Every round asks other questions, and every target of a round the same.
    asked = chats(seed, cell.task, (number + 1) * cell.requests, cell.requests)
    return Order(
        port=0,
        stream=cell.stream,
        tokens=cell.tokens,
        callers=min(cell.callers, cell.requests),
        requests=cell.requests,
        spread_s=cell.spread_s,
        chats=tuple(asked),
    )
