"""
Who is tried next, given how the last one failed.

A plan that does no I/O: it yields what to do and is sent what happened. Does not know the order's reasons (routing.py).
"""

from collections.abc import Generator, Sequence

from gateway.domain.errors import BackendFailed
from gateway.domain.job import Target


class TargetsExhausted(BackendFailed):
    """Every target failed; the causes are kept in the order in which they happened."""

    def __init__(self, failures: Sequence[tuple[Target, BackendFailed]]) -> None:
        last = failures[-1][1].message if failures else "no endpoint serves this model's base"
        super().__init__(last)
        self.failures = tuple(failures)


def attempts(targets: Sequence[Target]) -> Generator[Target, BackendFailed, None]:
    """
    Yield the next target to try; be sent how it failed.

    Raises:
        BackendFailed: the one sent, where no other target would answer either.
        TargetsExhausted: all of them failed, or there was none.
    """
    failures: list[tuple[Target, BackendFailed]] = []
    for target in targets:
        failure = yield target
        if not failure.elsewhere:
            raise failure
        failures.append((target, failure))
    raise TargetsExhausted(failures)
