"""
What is measured: cells, the targets of each, and how much of it.

Decides sizes, so that a whole run stays within about three minutes on two cores. Does not know how a target is
started or asked.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

STEP_S = 0.010
"""A stand-in's pace: one token of every stream in each step."""

PACED_BASE = "tiny-paced"
ENGINE_BASE = "tiny"


class Target(StrEnum):
    """Who is asked."""

    GATEWAY = "gateway"
    NGINX = "nginx"
    TRITONCLIENT = "tritonclient"
    TRANSPORT = "transport"


class Unit(StrEnum):
    """What the cost is divided by."""

    REQUEST = "request"
    TOKEN = "token"  # noqa: S105 - not a password


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """
    One kind of traffic. `requests` in each round, by `callers` at once, who begin spread over `spread_s`; each answer
    has exactly `tokens` tokens. `task`: whose held-out prompts are sent; None for long seeded ones of 0.8 kB.
    `paced`: answered by the stand-ins at a fixed pace, else by the real Triton with the reference engine.
    """

    name: str
    title: str
    unit: Unit
    targets: tuple[Target, ...]
    paced: bool
    model: str
    stream: bool
    tokens: int
    callers: int
    requests: int
    spread_s: float = 0.0
    task: str | None = None


_BESIDE = (Target.GATEWAY, Target.NGINX, Target.TRITONCLIENT, Target.TRANSPORT)
_STREAM_TOKENS = 64
_SHORT_TOKENS = 8
_ENGINE_CALLERS = 16

CELLS = (
    Cell(
        name="plain",
        title="plain answers of 8 tokens, 64 callers",
        unit=Unit.REQUEST,
        targets=_BESIDE,
        paced=True,
        model=PACED_BASE,
        stream=False,
        tokens=_SHORT_TOKENS,
        callers=64,
        requests=768,
    ),
    Cell(
        name="streams",
        title="64 streams of 64 tokens, one token each 10 ms",
        unit=Unit.TOKEN,
        targets=_BESIDE,
        paced=True,
        model=PACED_BASE,
        stream=True,
        tokens=_STREAM_TOKENS,
        callers=64,
        requests=192,
        spread_s=_STREAM_TOKENS * STEP_S,
    ),
    Cell(
        name="one",
        title="plain answers of 8 tokens, one caller",
        unit=Unit.REQUEST,
        targets=_BESIDE,
        paced=True,
        model=PACED_BASE,
        stream=False,
        tokens=_SHORT_TOKENS,
        callers=1,
        requests=256,
    ),
    Cell(
        name="engine",
        title="real Triton, reference engine, base: 16 streams of 64 tokens",
        unit=Unit.TOKEN,
        targets=(Target.GATEWAY, Target.TRITONCLIENT, Target.TRANSPORT),
        paced=False,
        model=ENGINE_BASE,
        stream=True,
        tokens=_STREAM_TOKENS,
        callers=_ENGINE_CALLERS,
        requests=48,
    ),
    Cell(
        name="engine-lora",
        title="the same through a LoRA profile, its adapter resident",
        unit=Unit.TOKEN,
        targets=(Target.GATEWAY,),
        paced=False,
        model="order-desk",
        stream=True,
        tokens=_STREAM_TOKENS,
        callers=_ENGINE_CALLERS,
        requests=48,
        task="tenant-tool",
    ),
    Cell(
        name="engine-virtual",
        title="the same through a profile of 16 virtual tokens",
        unit=Unit.TOKEN,
        targets=(Target.GATEWAY,),
        paced=False,
        model="support-bot",
        stream=True,
        tokens=_STREAM_TOKENS,
        callers=_ENGINE_CALLERS,
        requests=48,
        task="context",
    ),
)

ROUNDS = 5
QUICK_ROUNDS = 1
_QUICK_SHARE = 8


def quick(cell: Cell) -> Cell:
    """The same traffic, as little of it as keeps its shape: each caller asks once, or few of them."""
    return replace(cell, requests=min(cell.requests, max(cell.requests // _QUICK_SHARE, min(cell.callers, 16))))


def warm_up(cell: Cell) -> Cell:
    """What is asked once before anything is measured: imports happen, connections open, adapters travel."""
    return replace(cell, requests=max(1, min(cell.callers, cell.requests // 4)), spread_s=0.0)
