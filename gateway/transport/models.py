"""
GET /v1/models and /v1/models/{id}: what a key may name, in OpenAI's shape.
"""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.domain.errors import ModelNotFound
from gateway.domain.profile import ModelName, Profile
from gateway.domain.tenant import Tenant
from gateway.ports import ProfileCatalog
from gateway.transport.auth import KeyRing


class ModelObject(msgspec.Struct, frozen=True):
    """One model as OpenAI lists it, and what it stands on."""

    id: str
    created: int
    owned_by: str
    object: str = "model"
    base: str = ""
    kind: str = ""
    version: int = 0


class ModelsEndpoint:
    """Lists and shows; unknown and forbidden names get the same answer."""

    def __init__(self, catalog: ProfileCatalog, keys: KeyRing[Tenant]) -> None:
        self._catalog = catalog
        self._keys = keys

    async def listing(self, request: Request) -> Response:
        tenant = self._keys.holder(request.scope["headers"])
        data = [_object(profile, tenant, _name(profile, tenant)) for profile in self._catalog.visible(tenant)]
        return _json({"object": "list", "data": data})

    async def one(self, request: Request) -> Response:
        tenant = self._keys.holder(request.scope["headers"])
        asked = request.path_params["model"]
        name = ModelName.parse(asked)
        profile = None if name is None else self._catalog.resolve(tenant, name)
        if profile is None:
            raise ModelNotFound(f"The model `{asked[:256]}` does not exist or you do not have access to it.")
        return _json(_object(profile, tenant, asked))


def _name(profile: Profile, tenant: Tenant) -> str:
    foreign = profile.tenant is not None and profile.tenant != tenant.name
    return f"{profile.tenant}/{profile.name}" if foreign else profile.name


def _object(profile: Profile, tenant: Tenant, name: str) -> ModelObject:
    return ModelObject(
        id=name,
        created=profile.created,
        owned_by=profile.tenant or "base",
        base=profile.base,
        kind=profile.kind,
        version=profile.version,
    )


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
