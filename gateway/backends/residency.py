"""
Which adapters this process believes the engines to hold.

A claim, not a fact: the engine may evict at any time, and says so only when asked for the adapter. Does not load
anything itself.
"""

from collections import OrderedDict

from gateway.domain.adapter import LoraAdapter
from gateway.domain.job import Endpoint


class Residency:
    """The sending that each endpoint is believed to hold of each adapter; the oldest claims are dropped."""

    def __init__(self, most_claims: int) -> None:
        self._most = most_claims
        self._claims: OrderedDict[tuple[str, int], int] = OrderedDict()

    def claim(self, endpoint: Endpoint, adapter: LoraAdapter) -> int:
        """The number of the sending, or 0."""
        return self._claims.get((endpoint.name, adapter.task_id), 0)

    def learned(self, endpoint: Endpoint, adapter: LoraAdapter, sending: int) -> None:
        key = endpoint.name, adapter.task_id
        self._claims[key] = sending
        self._claims.move_to_end(key)
        if len(self._claims) > self._most:
            self._claims.popitem(last=False)

    def missed(self, endpoint: Endpoint, adapter: LoraAdapter, sending: int) -> None:
        """The engine did not know what was sent under this number; a later claim stays."""
        if self.claim(endpoint, adapter) <= sending:
            self._claims.pop((endpoint.name, adapter.task_id), None)
