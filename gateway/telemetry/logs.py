"""
One line of JSON for each thing worth telling, on standard error. No prompt, no answer, no key is ever in one.
"""

import logging
import sys
import time

import msgspec

from gateway.domain.record import RequestRecord

_log = logging.getLogger("tailor.request")


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        fields.update(getattr(record, "fields", None) or {"message": record.getMessage()})
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(fields).decode()


def configure_logs(level: int = logging.INFO) -> None:
    """Send every logger of this process through the one format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Its line for each request would be a second one, with less in it.
    logging.getLogger("uvicorn.access").disabled = True


class LogObserver:
    """An Observer that writes one line for each request."""

    def started(self, record: RequestRecord) -> None:
        pass

    def finished(self, record: RequestRecord) -> None:
        fields: dict[str, object] = {
            "request_id": record.request_id,
            "tenant": record.tenant,
            "operation": record.operation,
            "stream": record.stream,
            "model": record.model[:128],
            "version": record.profile_version,
            "endpoint": record.endpoint,
            "rung": record.rung,
            "outcome": record.outcome,
            "prompt_tokens": record.usage.prompt_tokens - record.usage.virtual_tokens,
            "virtual_tokens": record.usage.virtual_tokens,
            "completion_tokens": record.usage.completion_tokens,
            "total_ms": round((record.ended_s - record.started_s) * 1000, 1),
        }
        if record.first_content_s:
            fields["first_content_ms"] = round((record.first_content_s - record.started_s) * 1000, 1)
        if record.error:
            fields["error"] = record.error
        _log.info("request", extra={"fields": fields})
