"""
The generating routes in the OpenAPI document: their bodies as msgspec's own schemas, since FastAPI never sees them.
"""

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from gateway.transport.schemas import ChatBody, CompletionBody

_OPERATIONS = {"/v1/chat/completions": ("Chat completion", ChatBody), "/v1/completions": ("Completion", CompletionBody)}
_PLAIN = {
    "/v1/models": "The models that this key may name",
    "/v1/models/{model}": "One model",
    "/livez": "Whether the process runs",
    "/readyz": "Whether it can serve",
}


def describe_generation(app: FastAPI) -> None:
    """Make `/openapi.json` tell of the routes that FastAPI only passes on."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    bodies = [body for _, body in _OPERATIONS.values()]
    schemas, components = msgspec.json.schema_components(bodies, ref_template="#/components/schemas/{name}")
    document = get_openapi(title=app.title, version="1", routes=app.routes)
    document.setdefault("components", {})["schemas"] = components
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for (path, (summary, _)), schema in zip(_OPERATIONS.items(), schemas, strict=True):
        document["paths"][path] = {
            "post": {
                "summary": summary,
                "security": [{"key": []}],
                "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
                "responses": {"200": {"description": "The answer, as JSON or as server-sent events"}},
            }
        }
    for path, summary in _PLAIN.items():
        parameters = [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}]
        document["paths"][path] = {
            "get": {
                "summary": summary,
                "responses": {"200": {"description": summary}},
                **({"parameters": parameters} if "{" in path else {}),
                **({"security": [{"key": []}]} if path.startswith("/v1/") else {}),
            }
        }
    return document
