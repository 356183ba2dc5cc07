"""
Every metric, its unit and its label values, in one place.

Counted in files that all processes of a gateway share, so that any of them can tell the sum and a process that ends
takes nothing along. Labels come from closed sets: tenants of the configuration, never names that a caller made up.
"""

import os
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from gateway.domain.record import RequestRecord

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

_requests = Counter("tailor_requests", "Requests ended.", ("tenant", "operation", "outcome"))
_tokens = Counter("tailor_tokens", "Tokens of ended requests.", ("tenant", "kind"))
_first_content = Histogram(
    "tailor_first_content_seconds", "From the request's admission to its first content.", buckets=_SECONDS
)
_whole = Histogram("tailor_request_seconds", "From the request's admission to its end.", buckets=_SECONDS)
_in_flight = Gauge("tailor_requests_in_flight", "Requests under way.", multiprocess_mode="livesum")
_loads = Counter("tailor_adapter_loads", "Adapters sent to an engine.", ("endpoint", "outcome"))


class MetricsObserver:
    """An Observer that counts."""

    def __init__(self) -> None:
        self._requests = _requests.labels
        self._tokens = _tokens.labels

    def started(self, record: RequestRecord) -> None:
        _in_flight.inc()

    def finished(self, record: RequestRecord) -> None:
        _in_flight.dec()
        self._requests(record.tenant, record.operation, record.outcome).inc()
        if record.started_s:
            _whole.observe(record.ended_s - record.started_s)
        if record.first_content_s:
            _first_content.observe(record.first_content_s - record.started_s)
            usage = record.usage
            self._tokens(record.tenant, "prompt").inc(usage.prompt_tokens - usage.virtual_tokens)
            self._tokens(record.tenant, "virtual").inc(usage.virtual_tokens)
            self._tokens(record.tenant, "completion").inc(usage.completion_tokens)


def count_load(endpoint: str, outcome: str) -> None:
    """One adapter was sent to an endpoint; `outcome` is `loaded` or a failure's name."""
    _loads.labels(endpoint, outcome).inc()


def exposition() -> bytes:
    """All processes' metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    _forget_killed()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def _forget_killed() -> None:
    # What a process that was killed had under way is under way no more; what it counted stays.
    for file in Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).glob("gauge_live*_*.db"):
        try:
            os.kill(int(file.stem.rpartition("_")[2]), 0)
        except ProcessLookupError:
            file.unlink(missing_ok=True)
        except PermissionError:
            pass
