"""
Several observers as one.
"""

from gateway.domain.record import RequestRecord
from gateway.ports import Observer


class Observers:
    """Tells each in turn."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def started(self, record: RequestRecord) -> None:
        for observer in self._observers:
            observer.started(record)

    def finished(self, record: RequestRecord) -> None:
        for observer in self._observers:
            observer.finished(record)
