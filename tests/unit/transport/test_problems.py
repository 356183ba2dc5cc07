"""
One table of failures: every one has a status, and none lets an engine's own words out.
"""

import json

import pytest

from gateway.adapters.refusal import AdapterRefused
from gateway.domain import errors
from gateway.domain.errors import (
    AdapterCacheFull,
    AdapterNotLoaded,
    AnswerIncomplete,
    BackendFailed,
    BodyTooLate,
    CallerError,
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineFailed,
    EngineQueueFull,
    EngineRefused,
    InvalidKey,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    RequestTooLarge,
    TailorError,
    TargetUnavailable,
    UnsupportedMedia,
)
from gateway.domain.failover import TargetsExhausted
from gateway.domain.job import Target
from gateway.domain.registry_errors import RegistryError
from gateway.transport.problems import INTERNAL, problem, problem_body, problem_headers
from tests.unit.domain.making import ENDPOINT

SECRET = "Executor failed process requestId 42 at /opt/tritonserver/backends 10.0.0.7"
TARGET = Target(ENDPOINT)

TABLE = [
    (InvalidRequest("no", "n"), 400, "invalid_request_error", "invalid_value", False),
    (InvalidRequest("no", None, "invalid_json"), 400, "invalid_request_error", "invalid_json", False),
    (ContextLengthExceeded("no", "max_tokens"), 400, "invalid_request_error", "context_length_exceeded", False),
    (InvalidKey("no"), 401, "authentication_error", "invalid_api_key", False),
    (ModelNotFound("no"), 404, "invalid_request_error", "model_not_found", False),
    (RequestTooLarge("no"), 413, "invalid_request_error", "request_too_large", False),
    (BodyTooLate("no"), 408, "invalid_request_error", "request_timeout", False),
    (UnsupportedMedia("no"), 415, "invalid_request_error", "unsupported_media_type", False),
    (Overloaded("no", 2.0), 503, "server_error", "overloaded", True),
    (TargetUnavailable(SECRET), 503, "server_error", "no_healthy_backend", True),
    (AdapterNotLoaded(SECRET), 503, "server_error", "adapter_loading", True),
    (AdapterCacheFull(SECRET), 503, "server_error", "overloaded", True),
    (EngineQueueFull(SECRET), 503, "server_error", "overloaded", True),
    (EngineRefused(SECRET), 400, "invalid_request_error", "engine_refused", False),
    (DeadlineExceeded(SECRET), 504, "server_error", "deadline_exceeded", False),
    (AnswerIncomplete(SECRET), 502, "server_error", "upstream_lost", False),
    (EngineFailed(SECRET), 502, "server_error", "upstream_bad_response", False),
    (BackendFailed(SECRET), 502, "server_error", "upstream_bad_response", False),
    (TargetsExhausted([(TARGET, EngineFailed(SECRET)), (TARGET, EngineQueueFull(SECRET))]), 503, "server_error",
     "overloaded", True),
    (TargetsExhausted([]), 502, "server_error", "upstream_bad_response", False),
]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "status", "kind", "code", "retry"), TABLE, ids=[f"{type(row[0]).__name__} {row[3]}" for row in TABLE]
)
def test_what_a_failure_is_to_a_caller(error, status, kind, code, retry):
    told = problem(error)
    assert (told.status, told.type, told.code) == (status, kind, code)
    headers = dict(problem_headers(told, "req_1"))
    assert headers[b"x-should-retry"] == (b"true" if retry else b"false")
    assert (b"retry-after" in headers) is (b"retry-after-ms" in headers) is retry
    assert (b"www-authenticate" in headers) is (status == 401)
    assert headers[b"x-request-id"] == b"req_1"
    assert SECRET not in told.message
    assert told.message


def every(kind: type[TailorError]) -> list[type[TailorError]]:
    return [kind, *(narrower for direct in kind.__subclasses__() for narrower in every(direct))]


def test_the_table_above_leaves_no_failure_out():
    ours = {type(row[0]) for row in TABLE}
    named = {kind for kind in every(TailorError) if kind.__module__ in (errors.__name__, TargetsExhausted.__module__)}
    assert named - ours == {TailorError, CallerError}


@pytest.mark.parametrize("kind", [TailorError, RegistryError], ids=["any other", "one of the admin port's"])
def test_a_failure_that_no_row_knows_says_nothing(kind):
    assert problem(kind(SECRET)) is INTERNAL


def test_a_refused_adapter_says_nothing_on_the_callers_port():
    assert issubclass(AdapterRefused, Exception)
    assert not issubclass(AdapterRefused, CallerError)


def test_a_wait_is_told_in_whole_seconds_and_exactly():
    headers = dict(problem_headers(problem(Overloaded("full", 0.25)), "req_1"))
    assert (headers[b"retry-after"], headers[b"retry-after-ms"]) == (b"1", b"250")


def test_the_body_is_openais_error_object():
    body = json.loads(problem_body(problem(InvalidRequest("`n` is too large", "n")), "req_1"))
    assert body == {
        "error": {
            "message": "`n` is too large",
            "type": "invalid_request_error",
            "param": "n",
            "code": "invalid_value",
            "request_id": "req_1",
        }
    }
