"""
The adapter routes over a real socket: statuses, bodies, and what a bad upload costs.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.adapters.archive import ProfileNotes, archive
from gateway.adapters.directory import find_adapter
from gateway.registry.limits import RegistryLimits
from gateway.registry.registry import Registry
from gateway.stores.adapter_store import FileAdapterStore
from gateway.stores.memory_catalog import MemoryCatalog
from tests.contract.adapters.admin_server import AdminServer, admin_server
from tests.contract.adapters.conftest import Directories
from tests.unit.adapters.handmade import lora_config, lora_tensors, write

TAR = {"content-type": "application/x-tar"}


@pytest.fixture
def server(registry: Registry) -> Iterator[AdminServer]:
    with admin_server(registry) as running:
        yield running


@pytest.fixture
def http(server: AdminServer) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=f"{server.url}/admin/v1", headers={"authorization": f"Bearer {server.key}"}, timeout=60
    ) as client:
        yield client


def body(*directories: Path, notes: ProfileNotes | None = None) -> bytes:
    return b"".join(archive([find_adapter(item) for item in directories], notes or ProfileNotes()))


def upload(http: httpx.Client, content: bytes, **parameters: str) -> httpx.Response:
    return http.post("/profiles", params={"tenant": "acme", "name": "bot"} | parameters, content=content, headers=TAR)


def problem(response: httpx.Response) -> dict[str, Any]:
    error = response.json()["error"]
    assert set(error) >= {"message", "type", "param", "code", "details"}
    assert response.headers["x-request-id"]
    assert response.headers["x-should-retry"] in ("true", "false")
    return dict(error)


def test_the_life_of_a_profile(http: httpx.Client, directories: Directories) -> None:
    notes = ProfileNotes(instruction="Answer kindly.", description="first")
    first = upload(http, body(directories.lora, directories.table, notes=notes))
    assert first.status_code == 201
    assert first.json()["live"] == 1
    assert [item["kind"] for item in first.json()["version"]["adapters"]] == ["lora", "virtual-tokens"]
    again = upload(http, body(directories.lora, directories.table, notes=notes))
    assert (again.status_code, again.json()["outcome"]) == (200, "unchanged")
    second = upload(http, body(directories.other))
    assert (second.status_code, second.json()["version"]["number"], second.json()["live"]) == (201, 2, 1)

    shown = http.get("/profiles/acme/bot").json()
    assert [version["number"] for version in shown["versions"]] == [1, 2]
    assert shown["versions"][0]["instruction"] == "Answer kindly."
    assert [item["name"] for item in http.get("/profiles", params={"tenant": "acme"}).json()] == ["bot"]
    assert http.get("/profiles", params={"tenant": "globex"}).json() == []

    moved = http.post("/profiles/acme/bot/promote", params={"version": "2"})
    assert moved.json() == {"tenant": "acme", "name": "bot", "before": 1, "live": 2}
    assert http.post("/profiles/acme/bot/rollback").json()["live"] == 1
    assert http.post("/profiles/acme/bot/verify", params={"version": "2"}).json()["ok"] is True
    assert http.put("/profiles/acme/bot/grants", json=["globex"]).json() == ["globex"]
    assert http.delete("/profiles/acme/bot", params={"version": "2"}).json()["retired"] == [2]
    assert http.get("/tenants").json() == [
        {"name": "acme", "bases": ["small-llama"], "profiles": 1},
        {"name": "globex", "bases": [], "profiles": 0},
    ]
    assert http.post("/catalog/rebuild").json() == {"profiles": 1}
    assert http.delete("/profiles/acme/bot").json()["retired"] == [1]
    assert http.get("/profiles").json() == []


def test_without_the_key_nothing_is_told(server: AdminServer, directories: Directories) -> None:
    with httpx.Client(base_url=f"{server.url}/admin/v1") as stranger:
        for response in (
            stranger.get("/profiles"),
            stranger.get("/profiles/acme/bot"),
            stranger.get("/tenants"),
            upload(stranger, body(directories.lora)),
            stranger.delete("/profiles/acme/bot"),
        ):
            assert response.status_code == 401


def test_a_stray_slash_sends_nobody_to_the_host_they_named(server: AdminServer) -> None:
    answer = httpx.get(f"{server.url}/admin/v1/profiles/", headers={"host": "elsewhere.example"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_a_refused_adapter_is_422_with_its_reason(http: httpx.Client, tmp_path: Path) -> None:
    response = upload(http, body(write(tmp_path / "bad", lora_config(r=4), lora_tensors())))
    assert response.status_code == 422
    error = problem(response)
    assert error["code"] == "adapter_invalid"
    assert error["details"]["reason"] == "rank_mismatch"
    assert error["details"]["expected"] == "4"
    assert error["message"] == f"{error['details']['message']} {error['details']['hint']}"
    assert http.get("/profiles").json() == []


@pytest.mark.parametrize(
    ("parameters", "status", "code", "param"),
    [
        ({"tenant": "nobody"}, 404, "not_found", "tenant"),
        ({"name": "UPPER"}, 400, "invalid_upload", "name"),
        ({"name": "x" * 65}, 400, "invalid_upload", "name"),
        ({"name": "small-llama"}, 409, "adapter_conflict", "name"),
        ({"base": "other"}, 404, "not_found", "base"),
        ({"promote": "perhaps"}, 400, "invalid_upload", "promote"),
    ],
)
def test_parameters(
    parameters: dict[str, str], status: int, code: str, param: str, http: httpx.Client, directories: Directories
) -> None:
    response = upload(http, body(directories.lora), **parameters)
    assert response.status_code == status
    error = problem(response)
    assert (error["code"], error["param"]) == (code, param)


def test_a_missing_parameter_is_named(http: httpx.Client, directories: Directories) -> None:
    response = http.post("/profiles", params={"tenant": "acme"}, content=body(directories.lora), headers=TAR)
    assert response.status_code == 400
    assert problem(response)["param"] == "name"


@pytest.mark.parametrize(
    ("headers", "param"),
    [
        ({"content-type": "application/json"}, "content-type"),
        ({"content-type": "multipart/form-data; boundary=x"}, "content-type"),
        (TAR | {"content-encoding": "gzip"}, "content-encoding"),
    ],
)
def test_only_a_plain_tar_is_taken(
    headers: dict[str, str], param: str, http: httpx.Client, directories: Directories
) -> None:
    content = body(directories.lora)
    response = http.post("/profiles", params={"tenant": "acme", "name": "bot"}, content=content, headers=headers)
    assert response.status_code == 400
    assert problem(response)["param"] == param


def test_no_archive_and_half_an_archive(http: httpx.Client, directories: Directories) -> None:
    for content in (b"", b"hello", b"\x1f\x8b" + bytes(600), body(directories.lora)[:-3000]):
        response = upload(http, content)
        assert response.status_code == 400
        assert problem(response)["code"] == "invalid_upload"


def test_what_does_not_exist(http: httpx.Client, directories: Directories) -> None:
    upload(http, body(directories.lora))
    for response in (
        http.get("/profiles/acme/nothing"),
        http.get("/profiles/..%2f..%2fetc/passwd"),
        http.post("/profiles/acme/nothing/rollback"),
        http.post("/profiles/acme/bot/promote", params={"version": "7"}),
        http.post("/profiles/acme/bot/promote", params={"version": "canary"}),
        http.post("/profiles/acme/bot/verify", params={"version": "sha256:" + "0" * 64}),
        http.delete("/profiles/acme/nothing"),
        http.delete("/profiles/globex/bot"),
    ):
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "not_found"


def test_conflicts(http: httpx.Client, directories: Directories) -> None:
    upload(http, body(directories.lora))
    for response in (
        http.post("/profiles/acme/bot/rollback"),
        http.delete("/profiles/acme/bot", params={"version": "1"}),
    ):
        assert response.status_code == 409
        assert problem(response)["code"] == "adapter_conflict"
        assert response.headers["x-should-retry"] == "false"


def test_too_large_by_its_own_word_and_by_count(
    http: httpx.Client, registry: Registry, directories: Directories
) -> None:
    content = body(directories.lora)
    registry.limits = RegistryLimits(max_upload_bytes=len(content) - 1)
    declared = upload(http, content)
    pieces = [content[start : start + 1000] for start in range(0, len(content), 1000)]
    counted = http.post("/profiles", params={"tenant": "acme", "name": "bot"}, content=iter(pieces), headers=TAR)
    for response in (declared, counted):
        assert response.status_code == 413
        assert problem(response)["code"] == "request_too_large"
    registry.limits = RegistryLimits(max_upload_bytes=len(content))
    assert upload(http, content).status_code == 201


def test_a_sender_who_leaves_leaves_nothing(
    server: AdminServer, http: httpx.Client, store: FileAdapterStore, directories: Directories
) -> None:
    content = body(directories.lora)

    def half() -> Iterator[bytes]:
        yield content[:2000]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), httpx.Client(base_url=f"{server.url}/admin/v1", headers=http.headers) as one:
        one.post("/profiles", params={"tenant": "acme", "name": "bot"}, content=half(), headers=TAR)
    # The next request is answered when the broken one has been cleaned up or soon will be.
    for _ in range(200):
        assert http.get("/profiles").json() == []
        if not any((store.directory / "staging").iterdir()):
            return
    pytest.fail("the half upload is still there")


def test_the_document_shows_upload_and_answers(http: httpx.Client, server: AdminServer) -> None:
    document = httpx.get(f"{server.url}/openapi.json").json()
    operation = document["paths"]["/admin/v1/profiles"]["post"]
    assert list(operation["requestBody"]["content"]) == ["application/x-tar"]
    assert "Registered" in str(operation["responses"]["201"])
    assert "ProfileView" in document["components"]["schemas"]


def test_the_catalog_follows(http: httpx.Client, catalog: MemoryCatalog, directories: Directories) -> None:
    from gateway.domain.profile import ModelName
    from tests.contract.adapters.conftest import ACME

    name = ModelName.parse("bot")
    assert name is not None
    assert catalog.resolve(ACME, name) is None
    upload(http, body(directories.lora))
    assert catalog.resolve(ACME, name) is not None
    http.delete("/profiles/acme/bot")
    assert catalog.resolve(ACME, name) is None
