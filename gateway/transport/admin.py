"""
The application on the admin port: the admin API behind administrators' keys, and the metrics.
"""

from collections.abc import Callable

from fastapi import Depends, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.security import HTTPBearer
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from swagger_ui_bundle import swagger_ui_path

from gateway.transport.admin_engines import ListEngines, engines_router
from gateway.transport.admin_profiles import router as profiles
from gateway.transport.app import Lifespan, add_problem_handlers
from gateway.transport.auth import KeyRing


def admin_app(keys: KeyRing[str], engines: ListEngines, exposition: Callable[[], bytes], lifespan: Lifespan) -> FastAPI:
    """`keys`: administrators by name. `exposition`: all metrics in Prometheus' text format."""
    app = FastAPI(
        title="Tailor admin", version="1", lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    _serve_page(app)

    async def administrator(request: Request) -> None:
        request.state.administrator = keys.holder(request.scope["headers"])

    # The bearer scheme is only there to be seen in the document; the key ring decides.
    guarded = [Depends(HTTPBearer(auto_error=False)), Depends(administrator)]
    app.include_router(profiles, dependencies=guarded)
    app.include_router(engines_router(engines), dependencies=guarded)

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/livez", include_in_schema=False)
    async def livez() -> Response:
        return Response(b'{"status":"live"}', media_type="application/json")

    add_problem_handlers(app)
    return app


def _serve_page(app: FastAPI) -> None:
    """The OpenAPI page at /docs, with its scripts from here: an operator's network may reach no other host."""
    app.mount("/docs/static", StaticFiles(directory=swagger_ui_path), name="docs")

    @app.get("/docs", include_in_schema=False)
    async def page() -> Response:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=app.title,
            swagger_js_url="/docs/static/swagger-ui-bundle.js",
            swagger_css_url="/docs/static/swagger-ui.css",
            swagger_favicon_url="/docs/static/favicon-32x32.png",
        )
