"""
Bodies to requests: each field's rule, with both sides of every number, and the field named in every refusal.
"""

import json
from typing import Any

import pytest

from gateway.domain.errors import InvalidRequest
from gateway.domain.request import Chat, GenerationRequest, Message, Text, TokenIds
from gateway.transport.schemas import read_chat, read_completion
from tests.unit.domain.making import ACME

USER = {"role": "user", "content": "hi"}


def chat(**fields: object) -> GenerationRequest:
    return read_chat(json.dumps({"model": "m", "messages": [USER], **fields}).encode()).request(ACME)


def completion(**fields: object) -> GenerationRequest:
    return read_completion(json.dumps({"model": "m", "prompt": "hi", **fields}).encode()).request(ACME)


BOTH = pytest.mark.parametrize("read", [chat, completion], ids=["chat", "completion"])


@BOTH
@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("temperature", [0, 0.0, 2, 1e-9], [-0.001, 2.001, "1", True, [], 1e300]),
        ("top_p", [0, 0.5, 1], [-0.001, 1.001, "1"]),
        ("n", [1, 8], [0, 9, 1.5, "1", -1, 10**30, True]),
        ("max_tokens", [1, 2**31 - 1], [0, -1, 2**31, 1.5, "16", 10**400]),
        ("presence_penalty", [-2, 2], [-2.001, 2.001]),
        ("frequency_penalty", [-2, 2], [-2.001, 2.001]),
        ("repetition_penalty", [0.01, 10], [0, 0.009, 10.001, -1]),
        ("seed", [-(2**63), 2**63 - 1], [-(2**63) - 1, 2**63, 1.5, "7"]),
        ("top_k", [0, 1024], [-1, 1025]),
        ("min_tokens", [0, 2**31 - 1], [-1, 2**31]),
        ("stop", ["a", "x" * 256, [], ["a"] * 4], ["", "x" * 257, ["a"] * 5, [""], [1], 7]),
        ("logit_bias", [{}, {"0": 100, "7": -100}], [{"0": 100.1}, {"0": -100.1}, {"0": "1"}, [], {"x": 1}]),
        ("user", ["", "somebody"], [7, ["a"]]),
        ("stream", [True, False], ["yes", 1]),
        ("model", ["m"], ["", 7]),
    ],
)
def test_each_fields_rule(read, field, good, bad):
    for value in good:
        read(**{field: value})
    for value in bad:
        with pytest.raises(InvalidRequest) as refusal:
            read(**{field: value})
        assert (refusal.value.param or "").startswith(field), value
        assert field in refusal.value.message, value


@BOTH
def test_null_means_not_given(read):
    names = ["temperature", "top_p", "n", "max_tokens", "stop", "stream", "stream_options", "presence_penalty"]
    names += [
        "frequency_penalty",
        "logit_bias",
        "seed",
        "user",
        "top_k",
        "repetition_penalty",
        "min_tokens",
        "logprobs",
    ]
    assert read(**dict.fromkeys(names)) == read()


@BOTH
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temprature": 1}, "temprature"),
        ({"stream": True, "stream_options": {"usage": True}}, "stream_options.usage"),
        ({"api_base": "http://evil"}, "api_base"),
        ({"lora_task_id": 7}, "lora_task_id"),
        ({"a`b": 1}, "a`b"),
        ({"a\nb": 1}, "a\nb"),
        ({"": 1}, ""),
    ],
)
def test_an_unknown_field_is_named(read, fields, param):
    with pytest.raises(InvalidRequest) as refusal:
        read(**fields)
    assert (refusal.value.param, refusal.value.code) == (param, "unknown_parameter")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"functions": []}, "functions"),
        ({"audio": {}}, "audio"),
        ({"metadata": {"a": "b"}}, "metadata"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"messages": [{**USER, "name": "bob"}]}, "messages[0].name"),
        ({"messages": [USER, {**USER, "tool_calls": [{}]}]}, "messages[1].tool_calls"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(fields, param):
    with pytest.raises(InvalidRequest) as refusal:
        chat(**fields)
    assert (refusal.value.param, refusal.value.code) == (param, "unsupported_parameter")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"top_logprobs": 5}, "top_logprobs"),
        ({"store": True}, "store"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [USER] * 4097}, "messages"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_completion_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ],
)
def test_what_a_chat_may_not_hold(fields, param):
    with pytest.raises(InvalidRequest) as refusal:
        chat(**fields)
    assert (refusal.value.param or "").startswith(param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [[1], [2]]}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [2**31]}, "prompt"),
        ({"prompt": [1.5]}, "prompt"),
        ({"prompt": [[[1]]]}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"echo": True}, "echo"),
        ({"best_of": 2}, "best_of"),
        ({"suffix": "x"}, "suffix"),
        ({"logprobs": 1}, "logprobs"),
        ({"messages": []}, "messages"),
    ],
)
def test_what_a_completion_may_not_hold(fields, param):
    with pytest.raises(InvalidRequest) as refusal:
        completion(**fields)
    assert (refusal.value.param or "").startswith(param)


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_a_missing_field_is_named(missing):
    body = {"model": "m", "messages": [USER]}
    del body[missing]
    with pytest.raises(InvalidRequest) as refusal:
        read_chat(json.dumps(body).encode())
    assert (refusal.value.param, refusal.value.code) == (missing, "missing_required_parameter")


@pytest.mark.parametrize("read", [read_chat, read_completion], ids=["chat", "completion"])
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{", id="half an object"),
        pytest.param(b"hello", id="words"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"null", id="null"),
        pytest.param(b'"text"', id="a text"),
        pytest.param(b"{} {}", id="two objects"),
        pytest.param(b"\xff\xfe{\x00}\x00", id="another encoding"),
        pytest.param(b'\xef\xbb\xbf{"model":"m"}', id="a byte order mark"),
        pytest.param(b'{"model":"m\xff"}', id="bytes that are no text"),
        pytest.param(b'{"model":"\\ud800"}', id="half a surrogate pair"),
        pytest.param(b'{"model":"m","temperature":NaN}', id="not a number"),
        pytest.param(b'{"model":"m","temperature":Infinity}', id="infinity"),
        pytest.param(b'{"model":"m","temperature":1e999}', id="a number past all others"),
        pytest.param(b'{"model":"m","temperature":' + b"9" * 100_000 + b"}", id="a number of many digits"),
        pytest.param(b"[" * 1_000_000, id="a million open brackets"),
        pytest.param(b'{"a":' * 200_000, id="many open braces"),
        pytest.param(b'{"model":"m","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="deep messages"),
        pytest.param(
            b'{"model":"m","messages":[{"role":"user","content":"","annotations":' + b"[" * 200_000 + b"]" * 200_000,
            id="deep where anything goes",
        ),
        pytest.param(b'{"model":"m","x":' + b"[" * 200_000 + b"]" * 200_000 + b"}", id="deep in an unknown field"),
        pytest.param(b'{"model":"m","prompt":' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="a deep prompt"),
    ],
)
def test_no_body_does_more_than_be_refused(read, body):
    with pytest.raises(InvalidRequest) as refusal:
        read(body)
    assert len(refusal.value.message) < 400


@pytest.mark.parametrize(
    "body",
    [
        {"model": "m", "messages": [USER], "x" * 100_000: 1},
        {"model": "m", "messages": [{"role": "r" * 100_000, "content": ""}]},
        {"model": "m", "messages": [USER], "stream_options": {"y" * 100_000: 1}},
        {"model": "m", "messages": [USER], "logit_bias": {"z" * 100_000: 1}},
    ],
    ids=["an unknown field", "a role", "an unknown field within", "a key"],
)
def test_a_callers_own_words_do_not_swell_a_refusal(body):
    with pytest.raises(InvalidRequest) as refusal:
        read_chat(json.dumps(body).encode()).request(ACME)
    assert len(refusal.value.message) + len(refusal.value.param or "") < 600


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("hi", "hi"),
        ("", ""),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
    ],
)
def test_a_messages_text(content, text):
    assert chat(messages=[{"role": "user", "content": content}]).prompt == Chat((Message("user", text),))


def test_a_developer_is_the_system():
    made = chat(messages=[{"role": "developer", "content": "be brief"}, USER]).prompt
    assert made == Chat((Message("system", "be brief"), Message("user", "hi")))


def test_an_answer_sent_back_as_the_client_has_it_is_taken():
    said = {"role": "assistant", "content": "yo", "refusal": None, "annotations": [], "audio": None, "tool_calls": None}
    made = chat(messages=[USER, said, USER]).prompt
    assert isinstance(made, Chat)
    assert made.messages[1] == Message("assistant", "yo")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("hi", Text("hi")),
        ("", Text("")),
        (["hi"], Text("hi")),
        ([1, 2], TokenIds((1, 2))),
        ([[1, 2]], TokenIds((1, 2))),
        ([[]], TokenIds(())),
    ],
)
def test_a_completions_prompt(prompt, expected):
    assert completion(prompt=prompt).prompt == expected


@BOTH
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (1.0, 1.0)),
        ({"temperature": 0}, (0.0, 1.0)),
        ({"temperature": 0.7, "top_p": 0.9}, (0.7, 0.9)),
        ({"top_p": 0}, (0.0, 1.0)),
        ({"temperature": 1e-40}, (0.0, 1.0)),
        ({"temperature": 1, "top_p": 1e-300}, (0.0, 1.0)),
    ],
    ids=["nothing said", "greedy", "both", "no mass left", "as good as greedy", "as good as no mass"],
)
def test_temperature_and_top_p_together(read, fields, expected):
    sampling = read(**fields).sampling
    assert (sampling.temperature, sampling.top_p) == expected


def test_the_other_parameters_arrive():
    made: Any = chat(
        n=2, stop="x", logprobs=True, seed=7, top_k=3, min_tokens=2, repetition_penalty=1.5, presence_penalty=0.5,
        frequency_penalty=-0.5, logit_bias={"3": -1, "12": 2}, max_completion_tokens=5,
    )  # fmt: skip
    assert (made.n, made.stop, made.logprobs, made.max_tokens) == (2, ("x",), True, 5)
    assert made.max_tokens_param == "max_completion_tokens"
    assert made.tenant is ACME
    sampling = made.sampling
    assert (sampling.seed, sampling.top_k, sampling.min_tokens, sampling.repetition_penalty) == (7, 3, 2, 1.5)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.5, -0.5)
    assert sampling.logit_bias == ((3, -1.0), (12, 2.0))


def test_a_completion_has_openais_default_length_and_a_chat_has_none():
    assert completion().max_tokens == 16
    assert chat().max_tokens is None


def test_stream_options_want_a_stream():
    body = {"model": "m", "messages": [USER], "stream_options": {"include_usage": True}}
    with pytest.raises(InvalidRequest) as refusal:
        read_chat(json.dumps(body).encode()).include_usage()
    assert refusal.value.param == "stream_options"
    assert read_chat(json.dumps({**body, "stream": True}).encode()).include_usage()
