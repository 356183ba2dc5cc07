"""
What can be looked up: the models a key may name, the probes, and the document of all routes.
"""

from collections.abc import Iterator

from fastapi.openapi.models import OpenAPI

from gateway.backends.scripted import by_profile
from tests.http.gateway import serving


def test_a_key_lists_its_own_models_what_was_granted_and_its_bases():
    with serving(by_profile({})) as gateway:
        models = gateway.client().models.list().data
        assert [(model.id, model.owned_by) for model in models] == [
            ("faq", "acme"),
            ("support-bot", "acme"),
            ("globex/shared-bot", "globex"),
            ("tiny", "base"),
        ]
        assert [model.model_extra for model in models[:2]] == [
            {"base": "tiny", "kind": "virtual-tokens", "version": 1},
            {"base": "tiny", "kind": "lora", "version": 3},
        ]
        other = [model.id for model in gateway.client(gateway.other_key).models.list().data]
        assert other == ["secret-bot", "shared-bot", "tiny"]


def test_every_listed_model_can_be_looked_up_and_used():
    with serving(by_profile({})) as gateway:
        client = gateway.client()
        for model in client.models.list().data:
            assert client.models.retrieve(model.id) == model
            client.chat.completions.create(model=model.id, messages=[{"role": "user", "content": "hi"}])
        assert client.models.retrieve("support-bot@3").id == "support-bot@3"


def test_the_process_is_live_while_it_is_not_ready():
    ready = {"catalog": False, "engine": True}
    with serving(by_profile({}), checks={name: lambda name=name: ready[name] for name in ready}) as gateway:
        reply = gateway.request("GET", "/readyz", key=None)
        assert reply.status == 503
        assert reply.json == {"status": "not ready", "checks": {"catalog": False, "engine": True}}
        assert gateway.request("GET", "/livez", key=None).status == 200
        ready["catalog"] = True
        reply = gateway.request("GET", "/readyz", key=None)
        assert (reply.status, reply.json["status"]) == (200, "ready")


def references(value: object) -> Iterator[str]:
    match value:
        case dict():
            for key, inner in value.items():
                if key == "$ref":
                    yield inner
                yield from references(inner)
        case list():
            for inner in value:
                yield from references(inner)


def test_the_document_tells_of_every_route_and_holds_together():
    with serving(by_profile({})) as gateway:
        document = gateway.request("GET", "/openapi.json", key=None).json
        OpenAPI.model_validate(document)
        assert {path: set(operations) for path, operations in document["paths"].items()} == {
            "/v1/chat/completions": {"post"},
            "/v1/completions": {"post"},
            "/v1/models": {"get"},
            "/v1/models/{model}": {"get"},
            "/livez": {"get"},
            "/readyz": {"get"},
        }
        schemas = document["components"]["schemas"]
        found = set(references(document))
        assert found
        assert all(reference.removeprefix("#/components/schemas/") in schemas for reference in found)
        chat = schemas["ChatBody"]["properties"]
        assert chat["temperature"]["anyOf"][0] == {"type": "number", "minimum": 0, "maximum": 2}
        for path in document["paths"]:
            method = "POST" if path.endswith("completions") else "GET"
            reply = gateway.request(method, path.replace("{model}", "tiny"), {} if method == "POST" else None)
            assert reply.status in (200, 400), path
