"""
What a full volume looks like: the system says it in three ways, we in one.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.domain.registry_errors import StorageFull

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def is_full(error: OSError) -> bool:
    """Whether this failure means that there is no room."""
    return error.errno in _FULL


@contextmanager
def room_errors() -> Iterator[None]:
    """Raise StorageFull where the block fails for want of room."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise StorageFull("The adapter store's volume is full; free some space and repeat.") from error
