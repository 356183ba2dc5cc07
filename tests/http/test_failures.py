"""
What callers see when it goes wrong: a real status before the first content, a typed event after it, and never a trace.
"""

import asyncio
import json

import pytest
from openai import APIError, APIStatusError, InternalServerError

from gateway.backends.scripted import BreakOff, Fail, Pause, Script, Until, by_profile
from gateway.domain.errors import (
    AdapterCacheFull,
    DeadlineExceeded,
    EngineFailed,
    EngineRefused,
    TargetUnavailable,
)
from tests.http.gateway import CHAT, chat_body, events_of, serving, wait_for
from tests.unit.domain.making import ENDPOINT, OTHER

SECRET = "Executor failed process requestId 42 at 10.0.0.7"
HI = [{"role": "user", "content": "hi"}]


def always(*steps: object):
    return by_profile({}, otherwise=steps)  # type: ignore[arg-type]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("failure", "status", "code", "retry"),
    [
        pytest.param(TargetUnavailable(SECRET), 503, "no_healthy_backend", "true", id="the engine is away"),
        pytest.param(AdapterCacheFull(SECRET), 503, "overloaded", "true", id="it has no room"),
        pytest.param(DeadlineExceeded(SECRET), 504, "deadline_exceeded", "false", id="it takes too long"),
        pytest.param(EngineFailed(SECRET), 502, "upstream_bad_response", "false", id="it fails"),
        pytest.param(EngineRefused(SECRET), 400, "engine_refused", "false", id="it refuses"),
    ],
)
def test_a_failure_before_the_first_content_has_a_status_of_its_own(stream, failure, status, code, retry):
    with serving(always(Fail(failure))) as gateway:
        reply = gateway.chat(stream=stream)
        assert (reply.status, reply.error["code"]) == (status, code)
        assert reply.headers["content-type"] == "application/json"
        assert reply.headers["x-should-retry"] == retry
        assert ("retry-after" in reply.headers) is (retry == "true")
        assert SECRET.encode() not in reply.body
        record = gateway.records[-1]
        assert (record.outcome, record.endpoint) == ("failed", "triton-1")
        assert record.error in (type(failure).__name__, "TargetsExhausted")


def test_the_next_endpoint_answers_where_the_first_fails_before_any_content():
    def play(job, target) -> Script:
        return (Fail(TargetUnavailable("gone")),) if target.endpoint is ENDPOINT else ("here",)

    with serving(play, endpoints=[ENDPOINT, OTHER]) as gateway:
        reply = gateway.chat()
        assert reply.json["choices"][0]["message"]["content"] == "here"
        assert reply.headers["x-tailor-route"].startswith("endpoint=triton-2;")
        assert (gateway.records[-1].outcome, gateway.records[-1].endpoint) == ("finished", "triton-2")


def test_no_endpoint_is_tried_twice_and_none_after_a_refusal():
    asked = []

    def play(job, target) -> Script:
        asked.append(target.endpoint.name)
        return (Fail(EngineRefused("no") if target.endpoint is OTHER else TargetUnavailable("gone")),)

    with serving(play, endpoints=[ENDPOINT, OTHER]) as gateway:
        assert gateway.chat().status == 400
        assert asked == ["triton-1", "triton-2"]


def test_nothing_leaves_before_the_first_content():
    go = asyncio.Event()
    with serving(always(Until(go), "Hello")) as gateway, gateway.raw(CHAT, chat_body(stream=True)) as raw:
        wait_for(lambda: gateway.in_flight() == 1)
        assert raw.silent()
        gateway.set(go)
        assert raw.until(b"Hello").startswith(b"HTTP/1.1 200")
        raw.until(b"[DONE]")


@pytest.mark.parametrize(
    ("step", "code"),
    [
        pytest.param(Fail(EngineFailed(SECRET)), "upstream_bad_response", id="the engine fails"),
        pytest.param(Fail(TargetUnavailable(SECRET)), "no_healthy_backend", id="it goes away"),
        pytest.param(BreakOff(), "upstream_lost", id="it ends in silence"),
    ],
)
def test_a_failure_in_mid_stream_is_a_typed_event_and_no_end(step, code):
    with serving(always("Hel", "lo", step)) as gateway:
        reply = gateway.chat(stream=True)
        assert reply.status == 200
        *before, last = events_of(reply.body)
        assert "".join(json.loads(event)["choices"][0]["delta"].get("content", "") for event in before) == "Hello"
        error = json.loads(last)["error"]
        assert error["code"] == code
        assert error["request_id"] == reply.headers["x-request-id"]
        assert b"[DONE]" not in reply.body
        assert b'finish_reason":"' not in reply.body
        assert SECRET.encode() not in reply.body
        assert gateway.records[-1].outcome == "failed"
        assert gateway.records[-1].error


def test_the_official_client_raises_when_a_stream_breaks_off():
    with serving(always("Hel", "lo", Fail(EngineFailed(SECRET)))) as gateway:
        stream = gateway.client().chat.completions.create(model="support-bot", messages=HI, stream=True)
        text = ""
        with pytest.raises(APIError) as raised:  # noqa: PT012 - it is raised while the stream is read
            for chunk in stream:
                text += chunk.choices[0].delta.content or ""
        assert text == "Hello"
        assert raised.value.code == "upstream_bad_response"


def test_a_whole_answer_that_breaks_off_is_a_failure_and_no_half_answer():
    with serving(always("Hel", "lo", Fail(EngineFailed(SECRET)))) as gateway:
        with pytest.raises(InternalServerError) as raised:
            gateway.client().chat.completions.create(model="support-bot", messages=HI)
        assert raised.value.status_code == 502
        assert gateway.records[-1].outcome == "failed"


def test_a_long_wait_is_bridged_with_comments_that_clients_pass_over():
    go = asyncio.Event()
    with serving(always(Until(go), "Hello"), heartbeat_s=0.02) as gateway:
        with gateway.raw(CHAT, chat_body(stream=True)) as raw:
            opening = raw.until(b": keep-alive")
            assert opening.startswith(b"HTTP/1.1 200")
            assert b"x-request-id" in opening
            assert b"x-tailor-route" not in opening
            raw.until(b": keep-alive")
            gateway.set(go)
            raw.until(b"Hello")
            raw.until(b"[DONE]")
        stream = gateway.client().chat.completions.create(model="support-bot", messages=HI, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "Hello"


@pytest.mark.parametrize(
    ("failing", "code"),
    [
        pytest.param(Fail(TargetUnavailable(SECRET)), "no_healthy_backend", id="a failure with a name"),
        pytest.param(Fail(RuntimeError(SECRET)), "internal_error", id="a fault of our own"),  # type: ignore[arg-type]
    ],
)
def test_a_failure_after_a_heartbeat_is_a_typed_event(failing, code):
    with serving(always(Pause(0.1), failing), heartbeat_s=0.02) as gateway:
        reply = gateway.chat(stream=True)
        assert reply.status == 200
        assert b": keep-alive" in reply.body
        (only,) = events_of(reply.body)
        assert json.loads(only)["error"]["code"] == code
        assert b"[DONE]" not in reply.body
        assert SECRET.encode() not in reply.body
        assert gateway.records[-1].outcome == "failed"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("said", [(), ("Hel", "lo")], ids=["at once", "in the middle"])
def test_a_fault_of_our_own_shows_nothing_of_itself(stream, said):
    class Fault(Exception):
        """Nobody's failure."""

    with serving(always(*said, Fail(Fault(SECRET)))) as gateway:
        reply = gateway.chat(stream=stream)
        assert reply.status == (200 if stream and said else 500)
        told = json.loads(events_of(reply.body)[-1]) if stream and said else reply.json
        assert told["error"]["code"] == "internal_error"
        for trace in (SECRET, "Traceback", "Fault", ".py"):
            assert trace.encode() not in reply.body
        assert (gateway.records[-1].outcome, gateway.records[-1].error) == ("failed", "Fault")
        assert gateway.client().models.list().data


def test_a_process_that_is_full_says_when_to_come_back():
    go = asyncio.Event()
    with serving(always(Until(go), "Hello"), concurrent_requests=1) as gateway:
        with gateway.raw(CHAT, chat_body(stream=True)) as raw:
            wait_for(lambda: gateway.in_flight() == 1)
            reply = gateway.chat()
            assert (reply.status, reply.error["code"]) == (503, "overloaded")
            assert (reply.headers["retry-after"], reply.headers["x-should-retry"]) == ("1", "true")
            gateway.set(go)
            raw.until(b"[DONE]")
        assert gateway.chat().status == 200


def test_the_client_knows_the_status_and_the_request():
    with serving(always(Fail(TargetUnavailable(SECRET)))) as gateway:
        with pytest.raises(APIStatusError) as raised:
            gateway.client().chat.completions.create(model="support-bot", messages=HI)
        assert (raised.value.status_code, raised.value.code) == (503, "no_healthy_backend")
        assert raised.value.request_id == gateway.records[-1].request_id
