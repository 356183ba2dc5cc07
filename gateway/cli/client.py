"""
The admin API as the command line sees it: one method an operation, typed answers, errors as sentences.

Decides timeouts and what an unreachable gateway is called. Does not print.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from gateway.cli.output import CommandError, Exit
from gateway.cli.settings import AdminSettings
from gateway.domain.engine_view import EngineView
from gateway.registry.limits import Registration
from gateway.registry.views import LabelMoved, ProfileView, Registered, Removed, TenantView, Verification

T = TypeVar("T")
_MEDIA_TYPE = "application/x-tar"
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
# Converting has a time limit of its own on the other side; this only ends a wait for a gateway that is gone.
_CONVERSION_TIMEOUT = httpx.Timeout(60.0, connect=5.0, read=1800.0)


class _ErrorBody(msgspec.Struct):
    message: str
    code: str | None = None
    details: dict[str, str] | None = None


class _ErrorAnswer(msgspec.Struct):
    error: _ErrorBody


class AdminClient:
    """A connection, to be used as a block. Every method raises CommandError."""

    def __init__(self, settings: AdminSettings, *, transport: httpx.BaseTransport | None = None) -> None:
        self._url = settings.url
        self._http = httpx.Client(
            base_url=f"{settings.url}/admin/v1",
            headers={"authorization": f"Bearer {settings.key}"},
            timeout=_TIMEOUT,
            # A proxy of the environment has no business between an engineer and a gateway on loopback.
            trust_env=False,
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def tenants(self) -> list[TenantView]:
        return self._ask("GET", "/tenants", list[TenantView])

    def engines(self) -> list[EngineView]:
        return self._ask("GET", "/engines", list[EngineView])

    def register(self, what: Registration, body: Iterable[bytes], nbytes: int) -> Registered:
        """`body`: the archive in pieces; `nbytes`: their length in all."""
        parameters: dict[str, str] = {"tenant": what.tenant, "name": what.name}
        if what.base is not None:
            parameters["base"] = what.base
        for flag, on in (("promote", what.promote), ("any_base_name", what.any_base_name)):
            if on:
                parameters[flag] = "true"
        return self._ask(
            "POST",
            "/profiles",
            Registered,
            params=parameters,
            content=body,
            headers={"content-type": _MEDIA_TYPE, "content-length": str(nbytes)},
            timeout=_CONVERSION_TIMEOUT,
        )

    def profiles(self, tenant: str | None) -> list[ProfileView]:
        return self._ask("GET", "/profiles", list[ProfileView], params={"tenant": tenant} if tenant else None)

    def profile(self, tenant: str, name: str) -> ProfileView:
        return self._ask("GET", _path(tenant, name), ProfileView)

    def promote(self, tenant: str, name: str, version: str) -> LabelMoved:
        return self._ask("POST", f"{_path(tenant, name)}/promote", LabelMoved, params={"version": version})

    def rollback(self, tenant: str, name: str) -> LabelMoved:
        return self._ask("POST", f"{_path(tenant, name)}/rollback", LabelMoved)

    def verify(self, tenant: str, name: str, version: str) -> Verification:
        return self._ask(
            "POST",
            f"{_path(tenant, name)}/verify",
            Verification,
            params={"version": version},
            timeout=_CONVERSION_TIMEOUT,
        )

    def remove(self, tenant: str, name: str, version: str | None) -> Removed:
        return self._ask("DELETE", _path(tenant, name), Removed, params={"version": version} if version else None)

    def _ask(self, method: str, path: str, kind: type[T], **request: Any) -> T:
        with self._named_failures():
            response = self._http.request(method, path, **request)
        if response.is_success:
            try:
                return msgspec.json.decode(response.content, type=kind)
            except msgspec.MsgspecError as error:
                raise CommandError(
                    f"{self._url} answers in a way this command line does not know ({error}); are both of one version?",
                    Exit.UNREACHABLE,
                ) from error
        raise self._refused(response)

    @contextmanager
    def _named_failures(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            raise CommandError(
                f"{self._url} does not answer in time; look at its log and repeat.", Exit.UNREACHABLE
            ) from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise CommandError(
                f"{self._url} cannot be reached ({error}). Is the gateway running, and is this its admin address (port "
                "8081, not 8080)?",
                Exit.UNREACHABLE,
            ) from error

    def _refused(self, response: httpx.Response) -> CommandError:
        if response.status_code == 401:
            return CommandError(
                f"{self._url} does not know this admin key; check TAILOR_ADMIN_KEY or --admin-key.", Exit.UNREACHABLE
            )
        try:
            told = msgspec.json.decode(response.content, type=_ErrorAnswer).error
        except msgspec.MsgspecError:
            return CommandError(
                f"{self._url} answers {response.status_code} without saying why; is it a gateway's admin address?",
                Exit.UNREACHABLE,
            )
        exit_code = {404: Exit.NOT_FOUND, 503: Exit.UNREACHABLE}.get(response.status_code, Exit.REFUSED)
        return CommandError(told.message, exit_code, code=told.code or "", details=told.details)


def _path(tenant: str, name: str) -> str:
    return f"/profiles/{quote(tenant, safe='')}/{quote(name, safe='')}"
