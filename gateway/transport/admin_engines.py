"""
The admin API's part for engines: which endpoints there are, what each can take, which of them answer.
"""

from collections.abc import Awaitable, Callable, Sequence

import msgspec
from fastapi import APIRouter
from starlette.responses import Response

from gateway.domain.engine_view import EngineView

ListEngines = Callable[[], Awaitable[Sequence[EngineView]]]


def engines_router(engines: ListEngines) -> APIRouter:
    """`engines`: asks every endpoint."""
    router = APIRouter(prefix="/admin/v1", tags=["engines"])

    @router.get("/engines", summary="List engines", response_class=Response)
    async def listing() -> Response:
        """Every endpoint with its engine's manifest, and whether it answers now."""
        return Response(msgspec.json.encode(await engines()), media_type="application/json")

    return router
