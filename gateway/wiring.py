"""
The only file that names concrete classes: what a worker and what the control process is made of.

Decides nothing else; a behaviour that is looked for here belongs somewhere else.
"""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from gateway.backends.loader_client import LoaderClient
from gateway.backends.prompt_tables import PromptTables
from gateway.backends.triton import TritonBackend, TritonLimits
from gateway.backends.triton_priming import TritonPrimer
from gateway.backends.triton_tensors import MODEL
from gateway.backends.triton_transport import GrpcTransport
from gateway.config import LOADER_SOCKET, Config, ConfigError
from gateway.domain.engine_view import EngineView
from gateway.domain.job import Endpoint
from gateway.domain.manifest import ManifestError, load_manifest
from gateway.domain.tenant import Tenant
from gateway.generate import Generate, GenerateLimits
from gateway.loading import Loading
from gateway.registry.limits import RegistryLimits
from gateway.registry.registry import Registry
from gateway.stores.adapter_store import FileAdapterStore
from gateway.stores.catalog import RedisProfileCatalog
from gateway.stores.catalog_index import RedisCatalogIndex
from gateway.stores.redis_client import redis_client
from gateway.stores.sendings import RedisSendings
from gateway.telemetry.logs import LogObserver
from gateway.telemetry.metrics import MetricsObserver, count_load, exposition
from gateway.telemetry.observers import Observers
from gateway.tokens.tokenizer import BaseTokenizer, TokenizerError
from gateway.transport.admin import admin_app
from gateway.transport.app import Application, callers_app
from gateway.transport.auth import KeyRing
from gateway.transport.loader_socket import LoaderSocket
from gateway.transport.models import ModelsEndpoint
from gateway.transport.probes import Probes
from gateway.transport.text import TextEndpoint, TextLimits

_log = logging.getLogger(__name__)


def worker_app(config: Config, folder: Path) -> Application:
    """
    What answers callers, in each worker process. `folder`: what the configuration's relative paths are relative to.

    Raises:
        ConfigError: a file that the configuration names cannot be used.
    """
    endpoints = _endpoints(config, folder)
    codecs = _codecs(config, folder)
    redis = redis_client(config.redis.url, config.redis.timeout_s)
    manifests = [endpoint.manifest for endpoint in endpoints]
    catalog = RedisProfileCatalog(redis, manifests, folder / config.store.directory)
    transports = _transports(config)
    loader_path = _loader_path(config, folder)
    limits = config.limits
    backend = TritonBackend(
        transports,
        codecs,
        LoaderClient(loader_path),
        PromptTables(limits.prompt_table_bytes),
        TritonLimits(limits.first_token_s, limits.token_gap_s, limits.total_s),
    )
    generate = Generate(
        catalog,
        codecs,
        endpoints,
        backend,
        Observers(MetricsObserver(), LogObserver()),
        GenerateLimits(limits.concurrent_requests, limits.default_max_tokens),
    )
    tenants = {tenant.name: Tenant(tenant.name, frozenset(tenant.bases)) for tenant in config.tenants}
    keys = KeyRing(
        {key.id: (key.hash, tenants[tenant.name]) for tenant in config.tenants for key in tenant.keys},
        config.key_pepper,
    )
    text_limits = TextLimits(limits.body_bytes, limits.body_s, limits.heartbeat_s)
    probes = Probes(
        {
            "catalog": lambda: catalog.loaded,
            "engine": lambda: any(backend.ready(endpoint) for endpoint in endpoints),
            "loader": loader_path.is_socket,
        }
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with _running(catalog.watch(), backend.watch_health(), backend.watch_progress()):
            yield
        await asyncio.gather(redis.aclose(), *(transport.close() for transport in transports.values()))

    return callers_app(
        {
            "/v1/chat/completions": TextEndpoint("chat", generate, keys, text_limits),
            "/v1/completions": TextEndpoint("completion", generate, keys, text_limits),
        },
        ModelsEndpoint(catalog, keys),
        probes,
        lifespan,
    )


def control_app(config: Config, folder: Path) -> FastAPI:
    """
    The admin API, and what runs beside it: registration, and the loader that the workers ask.

    Raises:
        ConfigError: a file that the configuration names cannot be used.
    """
    endpoints = _endpoints(config, folder)
    redis = redis_client(config.redis.url, config.redis.timeout_s)
    registry = Registry(
        FileAdapterStore(folder / config.store.directory),
        RedisCatalogIndex(redis),
        [endpoint.manifest for endpoint in endpoints],
        _Tenants([Tenant(tenant.name, frozenset(tenant.bases)) for tenant in config.tenants]),
        limits=RegistryLimits(max_upload_bytes=config.store.upload_bytes),
    )
    transports = _transports(config)
    loading = Loading(TritonPrimer(transports), RedisSendings(redis), count=count_load)
    socket = LoaderSocket(loading, {endpoint.name: endpoint for endpoint in endpoints})
    keys = KeyRing({key.id: (key.hash, key.name or key.id) for key in config.admin_keys}, config.key_pepper)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        for missing in await registry.start():
            _log.warning("a profile cannot be served by the present engines: %s", missing)
        async with _running(registry.watch(), socket.serve(_loader_path(config, folder))):
            yield
        await asyncio.gather(redis.aclose(), *(transport.close() for transport in transports.values()))

    async def engines() -> list[EngineView]:
        ready = await asyncio.gather(*(transports[endpoint.name].ready(MODEL, timeout_s=2.0) for endpoint in endpoints))
        return [
            EngineView(endpoint.name, endpoint.address, answers, endpoint.manifest)
            for endpoint, answers in zip(endpoints, ready, strict=True)
        ]

    app = admin_app(keys, engines, exposition, lifespan)
    app.state.registry = registry
    return app


class _Tenants:
    def __init__(self, tenants: Sequence[Tenant]) -> None:
        self._tenants = tenants

    def tenants(self) -> Sequence[Tenant]:
        return self._tenants


@asynccontextmanager
async def _running(*work: Awaitable[None]) -> AsyncIterator[None]:
    """Keep these going as long as the block; one that fails is told of at once."""
    tasks = [asyncio.ensure_future(item) for item in work]
    for task in tasks:
        task.add_done_callback(_report)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _report(task: "asyncio.Future[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("a part of the gateway has stopped working; ending this process", exc_info=error)
        # Half a gateway looks healthy and serves what it knew an hour ago; whoever supervises it starts a whole one.
        os.kill(os.getpid(), signal.SIGTERM)


def _endpoints(config: Config, folder: Path) -> list[Endpoint]:
    known = {base.name for base in config.bases}
    endpoints = []
    for entry in config.endpoints:
        try:
            manifest = load_manifest(folder / entry.manifest)
        except ManifestError as error:
            raise ConfigError(f"endpoint `{entry.name}`: {error}") from error
        if manifest.base.name not in known:
            raise ConfigError(
                f"endpoint `{entry.name}` serves base `{manifest.base.name}`, which is not among `bases`; add it with "
                f"its tokenizer"
            )
        endpoints.append(Endpoint(entry.name, entry.url, manifest))
        first = next(endpoint for endpoint in endpoints if endpoint.manifest.base.name == manifest.base.name)
        # A request for a profile may go to any of them, with the tensors that were made for the first.
        if first.manifest.tensor_key != manifest.tensor_key:
            raise ConfigError(
                f"endpoints `{first.name}` and `{entry.name}` both serve base `{manifest.base.name}`, and take "
                "different adapters (weights, element type, ranks, modules or prompt tables differ); build both "
                "alike, or give one's base another name"
            )
    return endpoints


def _codecs(config: Config, folder: Path) -> Mapping[str, BaseTokenizer]:
    try:
        return {base.name: BaseTokenizer.load(folder / base.tokenizer) for base in config.bases}
    except TokenizerError as error:
        raise ConfigError(str(error)) from error


def _transports(config: Config) -> dict[str, GrpcTransport]:
    return {entry.name: GrpcTransport(entry.url, entry.connections) for entry in config.endpoints}


def _loader_path(config: Config, folder: Path) -> Path:
    return folder / config.runtime_directory / LOADER_SOCKET
