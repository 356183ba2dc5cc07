"""
One stack for all live tests of a session.

`TAILOR_TEST_STACK=.run make test` takes one that runs already (`make up BASE=tiny`) and leaves it running.
"""

from collections.abc import Iterator

import pytest

from tests.live.stack import Stack, attach, reused, running


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Real Valkey, Triton with the tiny base, gateway, and all demo profiles; nothing of it is left afterwards."""
    if directory := reused():
        yield attach(directory)
        return
    with running(tmp_path_factory.mktemp("stack")) as started:
        yield started
