"""
The three services of a local run as processes: their commands, environments, and how each is asked whether it is ready.

Decides what each one is given. Does not start or stop anything (gateway/local/supervisor.py).
"""

import http.client
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec

from gateway.local import triton, valkey
from gateway.local.config_file import PEPPER_VARIABLE, Keys
from gateway.local.layout import RunDirectory
from gateway.local.ports import HOST, Ports
from gateway.local.supervisor import Service
from gateway.local.threads import thread_settings

_ANSWERS_WITHIN_S = 2.0
_BODY_BYTES = 1024 * 1024


def valkey_service(run: RunDirectory, base: str, ports: Ports) -> Service:
    data = run.valkey(base)
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Service(
        name="valkey",
        command=valkey.command(ports.valkey, data),
        environment=dict(os.environ),
        log=run.log("valkey"),
        pid_file=run.pids / "valkey.pid",
        ready=lambda: valkey.answers(ports.valkey),
        ready_within_s=30.0,
    )


def triton_service(run: RunDirectory, base: str, ports: Ports) -> Service:
    """
    Raises:
        LocalRunError: Triton's files, its Python's library or its shared memory are missing.
    """
    triton.install_stub()
    return Service(
        name="triton",
        command=triton.command(run.engine(base) / "model_repository", ports, pool_bytes=triton.pool_bytes()),
        environment=thread_settings() | triton.environment(dict(os.environ)),
        log=run.log("triton"),
        pid_file=run.pids / "triton.pid",
        ready=lambda: (
            _answers_ok(ports.triton_http, "/v2/health/ready")
            and _answers_ok(ports.triton_http, f"/v2/models/{triton.MODEL}/ready")
        ),
        ready_within_s=180.0,
    )


def gateway_service(run: RunDirectory, config: Path, ports: Ports, keys: Keys) -> Service:
    return Service(
        name="gateway",
        command=[sys.executable, "-m", "gateway", "serve", "--config", str(config)],
        environment=dict(os.environ) | {PEPPER_VARIABLE: keys.pepper, "TOKENIZERS_PARALLELISM": "false"},
        log=run.log("gateway"),
        pid_file=run.pids / "gateway.pid",
        ready=lambda: _answers_ok(ports.admin, "/livez") and _answers_ok(ports.gateway, "/readyz"),
        ready_within_s=60.0,
    )


def visible_models(ports: Ports, key: str) -> set[str]:
    """The names that the gateway lists for a key; none while it does not answer."""
    body = _get(ports.gateway, "/v1/models", {"authorization": f"Bearer {key}"}) or b""
    try:
        return {model.id for model in msgspec.json.decode(body, type=_Models).data}
    except msgspec.MsgspecError:
        return set()


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


def _answers_ok(port: int, path: str) -> bool:
    return _get(port, path) is not None


def _get(port: int, path: str, headers: Mapping[str, str] = MappingProxyType({})) -> bytes | None:
    """The body of an answer with status 200, or None for anything else."""
    connection = http.client.HTTPConnection(HOST, port, timeout=_ANSWERS_WITHIN_S)
    try:
        connection.request("GET", path, headers=dict(headers))
        response = connection.getresponse()
        return response.read(_BODY_BYTES) if response.status == http.HTTPStatus.OK else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
