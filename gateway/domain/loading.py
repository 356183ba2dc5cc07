"""
What a worker asks of the process that sends weights, and what it is told: the messages between the two.
"""

import msgspec

from gateway.domain.manifest import Dtype


class LoadOrder(msgspec.Struct, frozen=True, array_like=True):
    """An adapter is wanted at an endpoint, newer than the sending `missed`. `number` is the worker's own."""

    number: int
    endpoint: str
    missed: int
    task_id: int
    rows: int
    width: int
    columns: int
    dtype: Dtype
    weights: str
    config: str


class LoadReply(msgspec.Struct, frozen=True, array_like=True):
    """The sending that serves an order, or the failure's class and sentence."""

    number: int
    sending: int = 0
    failure: str = ""
    message: str = ""
