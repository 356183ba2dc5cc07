"""
What is refused at the door: keys, names, bodies, methods and paths, all in OpenAI's shape.
"""

import base64
from dataclasses import replace

import msgspec
import pytest
from openai import AuthenticationError, BadRequestError, NotFoundError

from gateway.backends.scripted import by_profile
from gateway.domain.keys import new_key
from tests.http.gateway import CHAT, COMPLETIONS, PEPPER, chat_body, serving
from tests.unit.domain.making import ENDPOINT, MANIFEST

HI = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def gateway():
    with serving(by_profile({}), body_bytes=10_000) as running:
        yield running


def bad_authorizations(key: str) -> dict[str, str | None]:
    stranger = new_key(PEPPER).text
    return {
        "none at all": None,
        "empty": "",
        "a scheme without a key": "Bearer",
        "another scheme": "Basic " + base64.b64encode(f"x:{key}".encode()).decode(),
        "the key alone": key,
        "a typo": f"Bearer {key[:-1]}{'0' if key[-1] != '0' else '1'}",
        "a key that nobody holds": f"Bearer {stranger}",
        "somebody else's secret": f"Bearer {key[:17]}{stranger[17:]}",
        "no key of ours": "Bearer sk-0000",
        "a very long one": "Bearer " + "x" * 20_000,
        "two keys": f"Bearer {key} {key}",
        "bytes of another alphabet": "Bearer tlr_é",
    }


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, "/v1/models", "/v1/models/support-bot"])
def test_every_way_of_having_no_key_gets_one_answer(gateway, path):
    method = "GET" if "models" in path else "POST"
    body = None if method == "GET" else chat_body()
    told = {}
    for cause, header in bad_authorizations(gateway.key).items():
        headers = {} if header is None else {"authorization": header.encode("latin-1")}
        reply = gateway.request(method, path, body, headers, key=None)
        assert reply.headers["www-authenticate"] == "Bearer"
        told[cause] = (reply.status, tuple(reply.error.items()))
    assert len(set(told.values())) == 1, told
    status, error = told["empty"]
    assert status == 401
    assert dict(error)["code"] == "invalid_api_key"
    assert "tlr_" + gateway.key[4:16] not in str(error)


def test_the_official_client_sees_an_authentication_error(gateway):
    with pytest.raises(AuthenticationError) as raised:
        gateway.client(new_key(PEPPER).text).chat.completions.create(model="support-bot", messages=HI)
    assert raised.value.code == "invalid_api_key"


def test_the_scheme_may_be_written_in_any_case(gateway):
    assert (
        gateway.request("GET", "/v1/models", headers={"authorization": f"bearer {gateway.key}"}, key=None).status == 200
    )


NAMES = {
    "unknown": "no-such-bot",
    "somebody else's": "secret-bot",
    "somebody else's by its owner": "globex/secret-bot",
    "of an owner who is not there": "nobody/secret-bot",
    "a version that is not there": "support-bot@99",
    "a label that is not there": "support-bot@canary",
    "a digest that is not there": "support-bot@sha256:" + "0" * 64,
    "no name at all": "../../etc/passwd",
    "a base that is not granted": "huge",
    "a base by a version": "tiny@1",
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_unknown_and_forbidden_names_get_one_answer(gateway, stream):
    told = {}
    for cause, name in NAMES.items():
        reply = gateway.request("POST", CHAT, chat_body(model=name, stream=stream))
        told[cause] = (reply.status, str(reply.error).replace(name, "NAME"))
        assert len(reply.body) - len(name) == len(gateway.chat(model="x").body) - 1 + len(
            reply.headers["x-request-id"]
        ) - len("req_" + "0" * 24)
    assert len(set(told.values())) == 1, told
    assert told["unknown"][0] == 404
    assert "model_not_found" in told["unknown"][1]


def test_names_of_models_are_the_same_in_the_list_and_by_themselves(gateway):
    for name in ("no-such-bot", "secret-bot", "globex/secret-bot"):
        with pytest.raises(NotFoundError) as raised:
            gateway.client().models.retrieve(name)
        assert raised.value.code == "model_not_found"


def test_the_owner_can_use_what_others_cannot_see(gateway):
    client = gateway.client(gateway.other_key)
    assert client.chat.completions.create(model="secret-bot", messages=HI).choices
    with pytest.raises(NotFoundError):
        client.chat.completions.create(model="support-bot", messages=HI)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        pytest.param(b"{", "invalid_json", None, id="half an object"),
        pytest.param(b"", "invalid_json", None, id="nothing"),
        pytest.param(b"\xff" * 10, "invalid_json", None, id="no text"),
        pytest.param(b"[" * 9_000, "invalid_value", None, id="many brackets"),
        pytest.param(chat_body(temperature=3), "invalid_value", "temperature", id="a value over its bound"),
        pytest.param(chat_body(nonsense=1), "unknown_parameter", "nonsense", id="a field nobody knows"),
        pytest.param(chat_body(tools=[]), "unsupported_parameter", "tools", id="a field for another day"),
        pytest.param({"model": "m"}, "missing_required_parameter", "messages", id="no messages"),
        pytest.param(chat_body(max_tokens=10_000), "context_length_exceeded", "max_tokens", id="too long an answer"),
        pytest.param(chat_body("x " * 3_000), "context_length_exceeded", "messages", id="too long a prompt"),
        pytest.param(chat_body(logit_bias={"908": 1}), "token_out_of_range", "logit_bias", id="a token past the last"),
        pytest.param(
            chat_body(stream_options={"include_usage": True}), "invalid_value", "stream_options", id="no stream"
        ),
    ],
)
def test_bad_bodies(gateway, body, code, param):
    reply = gateway.request("POST", CHAT, body)
    assert (reply.status, reply.error["code"], reply.error["param"]) == (400, code, param)
    assert reply.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    "prompt",
    [[], [[]], "", [908], [2_000_000_000], [0, 1, 907, 908]],
    ids=[
        "no ids",
        "an empty list",
        "an empty text",
        "a virtual token's id",
        "a huge id",
        "one virtual id among others",
    ],
)
def test_prompts_that_no_engine_may_see(gateway, prompt):
    reply = gateway.request("POST", COMPLETIONS, {"model": "faq", "prompt": prompt})
    assert (reply.status, reply.error["param"]) == (400, "prompt")


def test_the_last_id_of_the_vocabulary_is_a_token(gateway):
    assert gateway.request("POST", COMPLETIONS, {"model": "faq", "prompt": [0, 907]}).status == 200


def test_the_numbers_of_a_context_are_both_sides_right(gateway):
    counted = gateway.client().completions.create(model="faq", prompt=[7] * 10, max_tokens=1)
    assert counted.usage is not None
    assert counted.usage.prompt_tokens == 10
    fits = {"model": "faq", "prompt": [7] * 446, "max_tokens": 64}
    assert gateway.request("POST", COMPLETIONS, fits).status == 200
    over = gateway.request("POST", COMPLETIONS, {**fits, "max_tokens": 65})
    assert over.error["code"] == "context_length_exceeded"
    assert "512" in over.error["message"]
    assert "2 of them the model's own virtual tokens" in over.error["message"]
    longer = gateway.request("POST", COMPLETIONS, {**fits, "prompt": [7] * 447, "max_tokens": 1})
    assert longer.error["param"] == "prompt"
    assert "448" in longer.error["message"]


def test_no_more_answers_are_asked_for_than_an_engine_gives_at_once():
    small = replace(ENDPOINT, manifest=msgspec.structs.replace(MANIFEST, max_batch_size=2))
    with serving(by_profile({}), endpoints=(ENDPOINT, small)) as gateway:
        assert gateway.chat(n=2).status == 200
        over = gateway.chat(n=3)
        assert (over.status, over.error["param"], over.error["message"]) == (
            400,
            "n",
            "this model gives at most 2 answers at once",
        )


def test_no_more_candidates_are_drawn_from_than_engines_can(gateway):
    assert gateway.chat(top_k=1024).status == 200
    over = gateway.chat(top_k=1025)
    assert (over.status, over.error["param"]) == (400, "top_k")


def test_the_official_client_sees_a_bad_request(gateway):
    with pytest.raises(BadRequestError) as raised:
        gateway.client().chat.completions.create(model="support-bot", messages=HI, n=9)
    assert (raised.value.code, raised.value.param) == ("invalid_value", "n")


def test_a_body_over_the_limit_is_refused_by_its_own_word_or_by_count(gateway):
    body = chat_body("x" * 20_000)
    reply = gateway.request("POST", CHAT, body)
    assert (reply.status, reply.error["code"]) == (413, "request_too_large")
    with gateway.connected() as raw:
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key}\r\n"
        raw.send(head.encode() + b"transfer-encoding: chunked\r\n\r\n")
        for _ in range(11):
            raw.send(b"3e8\r\n" + b" " * 1000 + b"\r\n")
        assert raw.until(b"request_too_large").startswith(b"HTTP/1.1 413")


def test_a_body_at_the_limit_is_read(gateway):
    body = b'{"model":"support-bot","messages":[{"role":"user","content":"hi"}]}'
    assert gateway.request("POST", CHAT, body.ljust(10_000)).status == 200
    assert gateway.request("POST", CHAT, body.ljust(10_001)).status == 413


def test_a_body_that_does_not_arrive_is_not_waited_for():
    with serving(by_profile({}), body_s=0.1) as gateway, gateway.connected() as raw:
        raw.send(f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key}\r\n".encode())
        raw.send(b"content-length: 100\r\n\r\n{")
        assert b"request_timeout" in raw.until(b"request_timeout")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", CHAT, 405, "method_not_allowed"),
        ("DELETE", CHAT, 405, "method_not_allowed"),
        ("PUT", COMPLETIONS, 405, "method_not_allowed"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/v1/embeddings", 404, "not_found"),
        ("GET", "/", 404, "not_found"),
        ("POST", CHAT + "/", 404, "not_found"),
        ("GET", "/livez/", 404, "not_found"),
        ("GET", "/metrics", 404, "not_found"),
        ("GET", "/admin/v1/profiles", 404, "not_found"),
        ("GET", "/docs", 404, "not_found"),
        ("GET", "/v1/../admin", 404, "not_found"),
        ("GET", "/" + "x" * 5_000, 404, "not_found"),
    ],
)
def test_other_methods_and_paths(gateway, method, path, status, code):
    reply = gateway.request(method, path)
    assert (reply.status, reply.error["code"]) == (status, code)
    assert reply.error["type"] == "invalid_request_error"
    assert len(reply.body) < 1_000
    if status == 405:
        assert reply.headers["allow"]


@pytest.mark.parametrize("host", ["a/livez?", "evil.example/", "x:y:z", "[::1"])
def test_a_strange_host_opens_no_door(gateway, host):
    reply = gateway.request("GET", "/v1/models", headers={"host": host}, key=None)
    assert reply.status == 401
    reply = gateway.request("GET", "/admin", headers={"host": host})
    assert reply.status == 404
    assert host not in reply.error["message"]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("req-1.A_b", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("a b", False),
        ("a\tb", False),
        ('"}', False),
        ("é", False),
        ("", False),
    ],
)
def test_a_request_id_is_the_callers_where_it_is_a_decent_one(gateway, sent, kept):
    for path, body in ((CHAT, chat_body()), (CHAT, {}), ("/nowhere", {})):
        reply = gateway.request("POST", path, body, {"x-request-id": sent.encode("latin-1")})
        assert (reply.headers["x-request-id"] == sent) is kept
        assert kept or reply.headers["x-request-id"].startswith("req_")


def test_every_request_without_an_id_gets_its_own(gateway):
    assert len({gateway.chat().headers["x-request-id"] for _ in range(10)}) == 10
