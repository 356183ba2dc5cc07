"""
Puts the engine's metrics on Triton's metrics port.

Decides how often: at most every PERIOD_S, and always once more after the last change, so that a freed slot is seen
although no iteration follows. A thread of its own, because every value set is a message to the server process.
"""

import threading
import time
from typing import Any

from .metrics import FAMILIES, readings
from .stats import Stats

PERIOD_S = 0.1


class MetricsPublisher:
    """Publishes the latest stats. `pb_utils` is Triton's module, which only exists inside its stub."""

    def __init__(self, pb_utils: Any) -> None:
        self._families = {
            name: (pb_utils.MetricFamily(name=name, description=description, kind=pb_utils.MetricFamily.GAUGE), label)
            for name, (description, label) in FAMILIES.items()
        }
        self._metrics: dict[tuple[str, str], Any] = {}
        self._published: dict[tuple[str, str], float] = {}
        self._latest: Stats | None = None
        self._changed = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def update(self, stats: Stats) -> None:
        """Note the load; cheap, called after every step."""
        self._latest = stats
        self._changed.set()

    def close(self) -> None:
        """Stop, and publish nothing more: while it unloads a model the server does not answer, and we would wait."""
        self._closed = True
        self._changed.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._changed.wait()
            self._changed.clear()
            if self._closed:
                return
            if self._latest is not None:
                self._publish(self._latest)
            time.sleep(PERIOD_S)

    def _publish(self, stats: Stats) -> None:
        for reading in readings(stats, time.time()):
            key = (reading.family, reading.label)
            if self._published.get(key) == reading.value:
                continue
            if key not in self._metrics:
                family, label = self._families[reading.family]
                self._metrics[key] = family.Metric(labels={label: reading.label})
            self._metrics[key].set(float(reading.value))
            self._published[key] = reading.value
