"""
/livez and /readyz: whether this process runs, and whether it can serve.
"""

from collections.abc import Callable, Mapping

import msgspec
from starlette.requests import Request
from starlette.responses import Response


class Probes:
    """`checks`: what must hold before callers may be sent here, each with the name it is reported under."""

    def __init__(self, checks: Mapping[str, Callable[[], bool]]) -> None:
        self._checks = checks

    async def livez(self, request: Request) -> Response:
        return Response(b'{"status":"live"}', media_type="application/json")

    async def readyz(self, request: Request) -> Response:
        results = {name: check() for name, check in self._checks.items()}
        ready = all(results.values())
        body = msgspec.json.encode({"status": "ready" if ready else "not ready", "checks": results})
        return Response(body, status_code=200 if ready else 503, media_type="application/json")
