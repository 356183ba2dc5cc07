"""
Prompt tables ready to be sent, kept in memory.

A table travels with every request of its profile, so it is read and serialised once; the least recently used ones are
dropped when all together pass a bound in bytes.
"""

from collections import OrderedDict

from gateway.backends.triton_tensors import VirtualTokens, virtual_tokens
from gateway.domain.adapter import PromptTable
from gateway.domain.errors import TargetUnavailable


class PromptTables:
    """A cache of serialised prompt tables, `most_bytes` in all."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._tables: OrderedDict[tuple[int, int], VirtualTokens] = OrderedDict()

    def get(self, prompt: PromptTable, vocab_size: int) -> VirtualTokens:
        """
        Raises:
            TargetUnavailable: the file is gone, or is not the table that it is said to be.
        """
        key = prompt.extra_id, vocab_size
        ready = self._tables.get(key)
        if ready is not None:
            self._tables.move_to_end(key)
            return ready
        ready = virtual_tokens(prompt, _table(prompt), vocab_size)
        self._tables[key] = ready
        self._bytes += len(ready.table.contents)
        while self._bytes > self._most_bytes and len(self._tables) > 1:
            self._bytes -= len(self._tables.popitem(last=False)[1].table.contents)
        return ready


def _table(prompt: PromptTable) -> bytes:
    try:
        table = prompt.table.read_bytes()
    except OSError as error:
        raise TargetUnavailable(f"the virtual tokens in {prompt.table} cannot be read: {error.strerror}") from error
    expected = prompt.rows * prompt.hidden * prompt.dtype.itemsize
    if len(table) != expected:
        # An engine finds out in its forward pass, which fails every active request.
        raise TargetUnavailable(f"{prompt.table} has {len(table)} bytes; {expected} belong to these virtual tokens")
    return table
