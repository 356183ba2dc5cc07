"""
The admin API's part for adapters: upload, look, promote, roll back, remove, verify, rebuild.

Decides paths and parameters. Authentication is the application's (a dependency where this router is mounted); the
registry is taken from `app.state.registry`. An upload is a plain tar as the body (gateway/adapters/archive.py), not a
form: a form parser would spool it a second time.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from gateway.adapters.archive import MEDIA_TYPE
from gateway.adapters.refusal import AdapterRefused
from gateway.domain.errors import TailorError
from gateway.domain.registry_errors import UploadInvalid
from gateway.registry.limits import Registration
from gateway.registry.registry import Registry
from gateway.registry.views import LabelMoved, ProfileView, Registered, Removed, TenantView, Verification
from gateway.transport.admin_problems import admin_problem
from gateway.transport.admin_upload import declared_bytes, receive_archive
from gateway.transport.asgi import request_id

_Handler = Callable[[Request], Coroutine[Any, Any, Response]]
_CLIENT_CLOSED_REQUEST = 499


class _Route(APIRoute):
    """Every failure of the adapter path in the one error shape, wherever the router is mounted."""

    def get_route_handler(self) -> _Handler:
        handler = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                return await handler(request)
            except (TailorError, AdapterRefused) as error:
                status, body, headers = admin_problem(error)
                return Response(body, status, headers | {"x-request-id": request_id(request.scope)})
            except RequestValidationError as error:
                status, body, headers = admin_problem(_misfit(error))
                return Response(body, status, headers | {"x-request-id": request_id(request.scope)})
            except ClientDisconnect:
                return Response(status_code=_CLIENT_CLOSED_REQUEST)

        return guarded


def _misfit(error: RequestValidationError) -> UploadInvalid:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"][1:]) or "body"
    return UploadInvalid(f"{name}: {first['msg']}.", name)


def _registry(request: Request) -> Registry:
    registry: Registry = request.app.state.registry
    return registry


Used = Annotated[Registry, Depends(_registry)]
Selector = Annotated[
    str | None,
    Query(description="A version: its number, a label such as `live`, or its digest `sha256:…`.", max_length=80),
]

router = APIRouter(prefix="/admin/v1", tags=["profiles"], route_class=_Route)


def _selected(text: str) -> int | str:
    return int(text) if text.isdecimal() and len(text) < 10 else text


@router.post(
    "/profiles",
    status_code=201,
    summary="Register a version",
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": (
                "A plain ustar archive: `profile.json` (optional: `instruction`, `description`), then "
                "`0/adapter_config.json` and `0/adapter_model.safetensors`; a second adapter under `1/`."
            ),
            "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def register(
    request: Request,
    response: Response,
    registry: Used,
    tenant: Annotated[str, Query(max_length=64)],
    name: Annotated[str, Query(max_length=64)],
    base: Annotated[str | None, Query(max_length=128, description="May be left out where one base is served.")] = None,
    promote: Annotated[bool, Query(description="Make it live at once. A profile's first version always is.")] = False,
    any_base_name: Annotated[
        bool, Query(description="Do not compare the base's name in the adapter's configuration with the engine's.")
    ] = False,
) -> Registered:
    """
    Convert an adapter for every engine of its base and make it a version of a profile.

    The same content again is the same version: 200 instead of 201. An adapter that cannot be served exactly is refused
    with 422 and a reason code in `error.details`.
    """
    declared = declared_bytes(request, registry.limits.max_upload_bytes)
    async with registry.receive(declared) as reader:
        await receive_archive(request, reader)
        registered = await registry.register(
            reader.finish(),
            Registration(tenant=tenant, name=name, base=base, promote=promote, any_base_name=any_base_name),
        )
    response.status_code = 201 if registered.outcome == "registered" else 200
    return registered


@router.get("/profiles", summary="List profiles")
async def listing(registry: Used, tenant: Annotated[str | None, Query(max_length=64)] = None) -> list[ProfileView]:
    """Profiles that have a version, by tenant and name."""
    return list(await registry.profiles(tenant))


@router.get("/profiles/{tenant}/{name}", summary="Show a profile")
async def show(registry: Used, tenant: str, name: str) -> ProfileView:
    """A profile with all its versions, retired ones too."""
    return await registry.show(tenant, name)


@router.post("/profiles/{tenant}/{name}/promote", summary="Make a version live")
async def promote(registry: Used, tenant: str, name: str, version: Annotated[str, Query(max_length=80)]) -> LabelMoved:
    """Callers of the bare name get this version, within two seconds and on every gateway."""
    return await registry.promote(tenant, name, _selected(version))


@router.post("/profiles/{tenant}/{name}/rollback", summary="Make the previous live version live again")
async def rollback(registry: Used, tenant: str, name: str) -> LabelMoved:
    """Undo the last promotion; once more undoes the one before."""
    return await registry.rollback(tenant, name)


@router.post("/profiles/{tenant}/{name}/verify", summary="Verify a version")
async def verify(registry: Used, tenant: str, name: str, version: Selector = None) -> Verification:
    """Compare stored bytes with their digests and convert them again. Without a version, the live one."""
    return await registry.verify(tenant, name, "live" if version is None else _selected(version))


@router.put("/profiles/{tenant}/{name}/grants", summary="Say which other tenants may use a profile")
async def grant(
    registry: Used, tenant: str, name: str, tenants: Annotated[list[str], Body(max_length=1000)]
) -> list[str]:
    """They name it `tenant/name`. The list replaces the one before."""
    return list(await registry.grant(tenant, name, tenants))


@router.delete("/profiles/{tenant}/{name}", summary="Retire a version, or the whole profile")
async def remove(registry: Used, tenant: str, name: str, version: Selector = None) -> Removed:
    """A version must have no label. Files stay: registering the same content again restores the version."""
    return await registry.remove(tenant, name, None if version is None else _selected(version))


@router.get("/tenants", summary="List tenants", tags=["tenants"])
async def tenants(registry: Used) -> list[TenantView]:
    """Tenants of the configuration, the bases they may call bare, and how many profiles they have."""
    return list(await asyncio.to_thread(registry.tenants))


@router.post("/catalog/rebuild", summary="Write the catalog's index anew", tags=["catalog"])
async def rebuild(registry: Used) -> dict[str, int]:
    """From the files of the adapter store; what Redis held is replaced. Says how many profiles there are."""
    return {"profiles": await registry.rebuild()}
