"""
The `tailor.yaml` and the `env` file of a local run, with keys made for this run alone.

Decides who the demo tenants are and what they may use. Does not know what the settings mean (gateway/config.py).
"""

import secrets
import shlex
from dataclasses import dataclass
from pathlib import Path

import yaml

from gateway.domain.keys import NewKey, new_key
from gateway.local.bases import LocalBase
from gateway.local.layout import RunDirectory, write_private
from gateway.local.ports import HOST, Ports

PEPPER_VARIABLE = "TAILOR_KEY_PEPPER"
TENANTS = ("acme", "globex")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """What was made for this run; the texts are written to `env` and nowhere else."""

    pepper: str
    tenants: dict[str, NewKey]
    admin: NewKey

    @classmethod
    def fresh(cls) -> "Keys":
        pepper = secrets.token_hex(32)
        return cls(pepper=pepper, tenants={name: new_key(pepper) for name in TENANTS}, admin=new_key(pepper))


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where callers, operators and tools find the run; URLs without a trailing slash, gRPC and Redis as host:port."""

    gateway: str
    admin: str
    triton_http: str
    triton_grpc: str
    triton_metrics: str
    valkey: str

    @classmethod
    def of(cls, ports: Ports) -> "Addresses":
        return cls(
            gateway=f"http://{HOST}:{ports.gateway}",
            admin=f"http://{HOST}:{ports.admin}",
            triton_http=f"http://{HOST}:{ports.triton_http}",
            triton_grpc=f"{HOST}:{ports.triton_grpc}",
            triton_metrics=f"http://{HOST}:{ports.triton_metrics}/metrics",
            valkey=f"{HOST}:{ports.valkey}",
        )


def write_config(run: RunDirectory, base: LocalBase, ports: Ports, keys: Keys, *, workers: int) -> Path:
    """Write `tailor.yaml`; it holds hashes of keys, the pepper comes by environment."""
    document = {
        "listen": {"host": HOST, "port": ports.gateway, "workers": workers},
        "admin": {"host": HOST, "port": ports.admin},
        "redis": {"url": f"redis://{HOST}:{ports.valkey}/0"},
        "store": {"directory": str(run.store(base.key))},
        "key_pepper": f"${{{PEPPER_VARIABLE}}}",
        "bases": [{"name": base.model, "tokenizer": str(base.checkpoint)}],
        "endpoints": [
            {
                "name": "triton-1",
                "url": f"{HOST}:{ports.triton_grpc}",
                "manifest": str(run.engine(base.key) / "manifest.json"),
            }
        ],
        "tenants": [
            {"name": name, "keys": [{"id": key.id, "hash": key.hash}], "bases": [base.model]}
            for name, key in keys.tenants.items()
        ],
        # An untuned small base may never end by itself, and an engine reserves room for as many tokens as may come.
        "limits": {"default_max_tokens": 512},
        "admin_keys": [{"id": keys.admin.id, "hash": keys.admin.hash, "name": "local"}],
    }
    heading = "# Written by `tailor up` at every start; change a copy.\n"
    write_private(run.config, heading + yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
    return run.config


def write_env(run: RunDirectory, addresses: Addresses, keys: Keys) -> Path:
    """Write the file that a shell sources to speak to this run. Source: design, section 4."""
    first, second = TENANTS
    variables = {
        "OPENAI_BASE_URL": f"{addresses.gateway}/v1",
        "OPENAI_API_KEY": keys.tenants[first].text,
        "SECOND_API_KEY": keys.tenants[second].text,
        "TAILOR_URL": addresses.gateway,
        "TAILOR_ADMIN_URL": addresses.admin,
        "TAILOR_ADMIN_KEY": keys.admin.text,
    }
    write_private(run.env, "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()))
    return run.env
