"""
Failures of the adapter path as the admin API tells them: status, code, and what a program needs beside the sentence.

Beside problems.py the only file that knows status numbers; that one is for callers, who are never told this much.
"""

from typing import Any

import msgspec

from gateway.adapters.refusal import AdapterRefused
from gateway.domain.errors import TailorError
from gateway.domain.registry_errors import (
    NotRegistered,
    RegistryConflict,
    RegistryError,
    RegistryUnavailable,
    StorageFull,
    UploadInvalid,
    UploadTooLarge,
)
from gateway.transport.problems import Problem, problem, problem_headers

_STATUS: tuple[tuple[type[RegistryError], int], ...] = (
    (NotRegistered, 404),
    (RegistryConflict, 409),
    (UploadTooLarge, 413),
    (UploadInvalid, 400),
    (RegistryUnavailable, 503),
    (StorageFull, 507),
    (RegistryError, 500),
)


def admin_problem(error: TailorError | AdapterRefused) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers but the request's id."""
    details: dict[str, str] | None = None
    if isinstance(error, AdapterRefused):
        told = Problem(422, "invalid_request_error", "adapter_invalid", f"{error.message} {error.hint}", "adapter")
        details = {"reason": error.code.value, "message": error.message, "hint": error.hint, **error.details}
    elif isinstance(error, RegistryError):
        status = next(status for known, status in _STATUS if isinstance(error, known))
        wait = 2.0 if isinstance(error, RegistryUnavailable) else None
        kind = "invalid_request_error" if status < 500 else "server_error"
        told = Problem(status, kind, error.code, error.message, error.param, wait)
    else:
        told = problem(error)
    return told.status, _body(told, details), _headers(told)


def _body(told: Problem, details: dict[str, str] | None) -> bytes:
    error: dict[str, Any] = {
        "message": told.message,
        "type": told.type,
        "param": told.param,
        "code": told.code,
        "details": details,
    }
    return msgspec.json.encode({"error": error})


def _headers(told: Problem) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in problem_headers(told, "")}
