"""
The gateway's configuration: one YAML file, read once, refused where it says something nobody knows.

Decides the file's shape and defaults. Secrets come by reference: `${NAME}` in any string is taken from the environment.
Does not wire anything.
"""

import os
import re
from collections import Counter
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml
from msgspec import Meta

Port = Annotated[int, Meta(ge=0, le=65535)]
Positive = Annotated[int, Meta(gt=0)]
Seconds = Annotated[float, Meta(gt=0)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?\Z")]

LOADER_SOCKET = "loader.sock"
"""The name, in the runtime directory, of the socket on which the control process takes orders."""

_REFERENCE = re.compile(r"\$\{([^}]*)\}")


class ConfigError(ValueError):
    """The file cannot be used; the text names the key, the value's fault, and the file."""


class Listen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where callers connect, and how many processes answer them."""

    host: str = "127.0.0.1"
    port: Port = 8080
    workers: Annotated[int, Meta(ge=1, le=64)] = 1


class AdminListen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where operators and engineers connect."""

    host: str = "127.0.0.1"
    port: Port = 8081


class RedisConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: str = "redis://127.0.0.1:6379/0"
    timeout_s: Seconds = 0.25


class StoreConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The adapter store: a directory on a volume that all gateways share. `upload_bytes` bounds one upload."""

    directory: str
    upload_bytes: Positive = 2 * 1024**3


class BaseConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A base model as callers name it, and the Hugging Face directory with its tokenizer."""

    name: Name
    tokenizer: str


class EndpointConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One Triton: its gRPC address as host:port, and its engine's manifest."""

    name: Name
    url: str
    manifest: str
    connections: Annotated[int, Meta(ge=1, le=64)] = 4


class KeyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An API key, by public id and keyed hash. `tailor keys new` makes both."""

    id: Annotated[str, Meta(pattern=r"^[0-9A-Za-z]{12}\Z")]
    hash: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    name: str = ""


class TenantConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(pattern=r"^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?\Z")]
    keys: tuple[KeyConfig, ...] = ()
    bases: tuple[Name, ...] = ()


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    Bounds of one worker process.

    `default_max_tokens`: an answer's length where the caller names none; null means what fits the context. The engine
    reserves room for all of it, so a smaller number lets more requests run at once. `header_bytes`, `header_s`: a
    request's line and headers, all of them. `stall_s`: how long a caller may read nothing of what is there for him.
    """

    header_bytes: Annotated[int, Meta(ge=1024, le=1024**2)] = 32 * 1024
    header_s: Seconds = 10.0
    stall_s: Seconds = 20.0
    body_bytes: Positive = 4 * 1024**2
    body_s: Seconds = 30.0
    concurrent_requests: Positive = 512
    default_max_tokens: Positive | None = None
    prompt_table_bytes: Positive = 256 * 1024**2
    first_token_s: Seconds = 60.0
    token_gap_s: Seconds = 30.0
    total_s: Seconds = 600.0
    heartbeat_s: Seconds = 15.0


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of it. Relative paths are relative to the folder of the file."""

    listen: Listen = Listen()
    admin: AdminListen = AdminListen()
    redis: RedisConfig = RedisConfig()
    store: StoreConfig
    key_pepper: Annotated[str, Meta(min_length=16)]
    bases: Annotated[tuple[BaseConfig, ...], Meta(min_length=1)]
    endpoints: Annotated[tuple[EndpointConfig, ...], Meta(min_length=1)]
    tenants: tuple[TenantConfig, ...] = ()
    admin_keys: tuple[KeyConfig, ...] = ()
    limits: Limits = Limits()
    runtime_directory: str = "."
    """Where this gateway's processes meet: the loader's socket and the counters they share."""


def load_config(path: Path, environment: Mapping[str, str] = os.environ) -> Config:
    """
    Read a configuration file.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown, missing or there twice, a value does not fit, a
            name is used twice, or a referenced environment variable is not set.
    """
    try:
        document = yaml.load(path.read_text("utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not YAML: {error}") from error
    try:
        config = msgspec.convert(_resolved(document, environment, "$"), Config)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}") from error
    _check_names(config, path)
    return config


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice: the later one would silently win, and a tenant or two be gone."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key, _ in node.value:
            if key.value in seen:
                mark = key.start_mark
                raise yaml.constructor.ConstructorError(problem=f"`{key.value}` is there twice", problem_mark=mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _resolved(value: object, environment: Mapping[str, str], at: str) -> object:
    match value:
        case str():
            return _REFERENCE.sub(lambda match: _lookup(match[1], environment, at), value)
        case list():
            return [_resolved(item, environment, f"{at}[{index}]") for index, item in enumerate(value)]
        case dict():
            return {key: _resolved(item, environment, f"{at}.{key}") for key, item in value.items()}
    return value


def _lookup(name: str, environment: Mapping[str, str], at: str) -> str:
    if name not in environment:
        raise ConfigError(f"`{at}` refers to ${{{name}}}, and that environment variable is not set")
    return environment[name]


def _check_names(config: Config, path: Path) -> None:
    keys = [key for tenant in config.tenants for key in tenant.keys] + list(config.admin_keys)
    for what, names in (
        ("base", [base.name for base in config.bases]),
        ("endpoint", [endpoint.name for endpoint in config.endpoints]),
        ("tenant", [tenant.name for tenant in config.tenants]),
        ("key id", [key.id for key in keys]),
    ):
        twice = next((name for name, count in Counter(names).items() if count > 1), None)
        if twice is not None:
            raise ConfigError(f"{path}: {what} `{twice}` is there twice; each needs a name of its own")
    known = {base.name for base in config.bases}
    for tenant in config.tenants:
        for name in tenant.bases:
            if name not in known:
                raise ConfigError(f"{path}: tenant `{tenant.name}` may use base `{name}`, which is not among `bases`")
