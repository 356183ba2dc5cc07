"""
Which adapters the engine holds.

Decides what is kept and what is evicted: least recently used first, never one that an active request uses, bounded in
bytes. Does not know what an adapter is beyond its size. Behaviour and texts: contract, section 4.5.
"""

from collections import OrderedDict

from .adapter import Adapter
from .errors import RequestError, lora_cache_full, lora_miss


class LoraCache:
    """An LRU over adapters, bounded in bytes."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity = capacity_bytes
        self._adapters: OrderedDict[int, Adapter] = OrderedDict()
        self._users: dict[int, int] = {}
        self._held = 0

    @property
    def held_bytes(self) -> int:
        return self._held

    def __contains__(self, task_id: int) -> bool:
        return task_id in self._adapters

    def __len__(self) -> int:
        return len(self._adapters)

    def use(self, task_id: int) -> Adapter:
        """
        Take a resident adapter into use, as the most recently used one.

        Raises:
            LoraExpectedError: it is not resident.
        """
        adapter = self._adapters.get(task_id)
        if adapter is None:
            raise lora_miss(task_id)
        self._adapters.move_to_end(task_id)
        self._users[task_id] = self._users.get(task_id, 0) + 1
        return adapter

    def release(self, task_id: int) -> None:
        """Give back one use. The adapter stays until room is needed."""
        left = self._users[task_id] - 1
        if left:
            self._users[task_id] = left
        else:
            del self._users[task_id]

    def store(self, adapter: Adapter) -> None:
        """
        Keep an adapter that is not resident, evicting idle ones as needed.

        Raises:
            LoraExpectedError: what is in use leaves too little room.
            RequestError: it is larger than the whole cache.
        """
        if adapter.nbytes > self._capacity:
            raise RequestError(
                f"Error storing task={adapter.task_id} in PEFT cache -- the adapter takes {adapter.nbytes} bytes and "
                f"the cache holds {self._capacity}"
            )
        idle = [task_id for task_id in self._adapters if task_id not in self._users]
        free = self._capacity - self._held
        evicted: list[int] = []
        for task_id in idle:
            if free >= adapter.nbytes:
                break
            free += self._adapters[task_id].nbytes
            evicted.append(task_id)
        if free < adapter.nbytes:
            raise lora_cache_full(adapter.task_id)
        for task_id in evicted:
            self._held -= self._adapters.pop(task_id).nbytes
        self._adapters[adapter.task_id] = adapter
        self._held += adapter.nbytes
