"""
One table: which failure gives which HTTP status, and the body that OpenAI's clients understand.

The only file that knows status numbers. Says nothing of internals to a caller: a backend's own words stay in the log.
"""

from typing import NamedTuple

import msgspec

from gateway.domain.errors import (
    AdapterCacheFull,
    AdapterNotLoaded,
    AnswerIncomplete,
    BackendFailed,
    BodyTooLate,
    CallerError,
    DeadlineExceeded,
    EngineQueueFull,
    EngineRefused,
    InvalidKey,
    ModelNotFound,
    Overloaded,
    RequestTooLarge,
    TailorError,
    TargetUnavailable,
    UnsupportedMedia,
)
from gateway.domain.failover import TargetsExhausted


class Problem(NamedTuple):
    """A failure as a caller sees it. `retry_after_s` is there only where waiting helps."""

    status: int
    type: str
    code: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None


# The first class that fits counts, so the narrow ones stand before the wide ones.
_CALLER: tuple[tuple[type[CallerError], int, str], ...] = (
    (InvalidKey, 401, "authentication_error"),
    (ModelNotFound, 404, "invalid_request_error"),
    (RequestTooLarge, 413, "invalid_request_error"),
    (BodyTooLate, 408, "invalid_request_error"),
    (UnsupportedMedia, 415, "invalid_request_error"),
    (CallerError, 400, "invalid_request_error"),
)
_BACKEND: tuple[tuple[type[BackendFailed], int, str, str, float | None], ...] = (
    (TargetUnavailable, 503, "no_healthy_backend", "No engine for this model can be reached right now.", 2.0),
    (AdapterNotLoaded, 503, "adapter_loading", "The engine could not load this model's adapter in time.", 1.0),
    (AdapterCacheFull, 503, "overloaded", "The engine has no room for this model's adapter right now.", 1.0),
    (EngineQueueFull, 503, "overloaded", "The engine's queue is full.", 1.0),
    (EngineRefused, 400, "engine_refused", "The engine refuses this request.", None),
    (DeadlineExceeded, 504, "deadline_exceeded", "The engine did not answer in time.", None),
    (AnswerIncomplete, 502, "upstream_lost", "The engine's answer broke off.", None),
    (BackendFailed, 502, "upstream_bad_response", "The engine failed to answer.", None),
)


def problem(error: TailorError) -> Problem:
    """The problem that an error is to a caller."""
    match error:
        case CallerError():
            status, kind = next((status, kind) for known, status, kind in _CALLER if isinstance(error, known))
            return Problem(status, kind, error.code, error.message, error.param)
        case Overloaded():
            return Problem(503, "server_error", "overloaded", error.message, None, error.retry_after_s)
        case TargetsExhausted(failures=((*_, (_, last)))):
            return problem(last)
        case BackendFailed():
            _, status, code, message, wait = next(row for row in _BACKEND if isinstance(error, row[0]))
            kind = "invalid_request_error" if status == 400 else "server_error"
            return Problem(status, kind, code, message, None, wait)
    return INTERNAL


INTERNAL = Problem(500, "server_error", "internal_error", "The gateway failed to handle this request.")
NOT_HTTP = Problem(400, "invalid_request_error", "invalid_http", "This is not an HTTP/1.1 request.")
HEAD_TOO_LARGE = Problem(
    431, "invalid_request_error", "headers_too_large", "The request's path and headers are over the limit."
)


def problem_body(problem: Problem, request_id: str) -> bytes:
    """OpenAI's error object as JSON."""
    error = {
        "message": problem.message,
        "type": problem.type,
        "param": problem.param,
        "code": problem.code,
        "request_id": request_id,
    }
    return msgspec.json.encode({"error": error})


def problem_headers(problem: Problem, request_id: str) -> list[tuple[bytes, bytes]]:
    """Headers that tell a client's own retries whether they can help."""
    headers = [
        (b"content-type", b"application/json"),
        (b"x-request-id", request_id.encode()),
        (b"x-should-retry", b"true" if problem.retry_after_s is not None else b"false"),
    ]
    if problem.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if problem.retry_after_s is not None:
        headers.append((b"retry-after", str(max(1, round(problem.retry_after_s))).encode()))
        headers.append((b"retry-after-ms", str(round(problem.retry_after_s * 1000)).encode()))
    return headers
