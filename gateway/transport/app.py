"""
The application on the callers' port: its routes, its answers to what no route takes, its lifespan.

The generating routes are in the FastAPI application and its OpenAPI document, but a request for one is handed to it
directly: no dependency solver and no middleware that wraps `send` stands in between.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.domain.errors import TailorError
from gateway.transport.asgi import request_id
from gateway.transport.models import ModelsEndpoint
from gateway.transport.openapi import describe_generation
from gateway.transport.probes import Probes
from gateway.transport.problems import INTERNAL, Problem, problem, problem_body, problem_headers

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

_CODES = {404: "not_found", 405: "method_not_allowed"}


class Application:
    """The FastAPI application with a way past it for the routes that generate."""

    def __init__(self, app: FastAPI, direct: Mapping[str, ASGIApp]) -> None:
        self._app = app
        self._direct = direct

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            endpoint = self._direct.get(scope["path"])
            if endpoint is not None:
                return await endpoint(scope, receive, send)
        await self._app(scope, receive, send)


def callers_app(
    generating: Mapping[str, ASGIApp], models: ModelsEndpoint, probes: Probes, lifespan: Lifespan
) -> Application:
    """The application on port 8080. `generating`: path to endpoint."""
    app = FastAPI(title="Tailor", lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False)
    for path, endpoint in generating.items():
        app.router.routes.append(Route(path, endpoint, methods=["POST"]))
    app.router.routes += [
        Route("/v1/models", models.listing),
        Route("/v1/models/{model:path}", models.one),
        Route("/livez", probes.livez),
        Route("/readyz", probes.readyz),
    ]
    add_problem_handlers(app)
    describe_generation(app)
    return Application(app, generating)


def add_problem_handlers(app: FastAPI) -> None:
    """Every failure in OpenAI's shape, those of routing included."""

    async def named(request: Request, error: Exception) -> Response:
        assert isinstance(error, TailorError)
        return _response(problem(error), request)

    async def routing(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = _CODES.get(error.status_code, "invalid_request")
        # Not request.url: a caller's Host header takes part in it.
        message = f"{request.method} {request.scope['path'][:200]}: {error.detail}"
        response = _response(Problem(error.status_code, "invalid_request_error", code, message), request)
        response.headers.update(error.headers or {})
        return response

    async def unnamed(request: Request, error: Exception) -> Response:
        return _response(INTERNAL, request)

    app.add_exception_handler(TailorError, named)
    app.add_exception_handler(HTTPException, routing)
    app.add_exception_handler(Exception, unnamed)


def _response(told: Problem, request: Request) -> Response:
    identifier = request_id(request.scope)
    headers = {name.decode(): value.decode() for name, value in problem_headers(told, identifier)}
    return Response(problem_body(told, identifier), status_code=told.status, headers=headers)
