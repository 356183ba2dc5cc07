"""
Callers who leave, at any moment: the engine's work ends, and the record says so.
"""

import asyncio

import pytest

from gateway.backends.scripted import Pause, Until, by_profile
from tests.http.gateway import CHAT, chat_body, serving, wait_for


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("said", [(), ("Hel",)], ids=["before the first token", "in the middle"])
@pytest.mark.parametrize("heartbeat_s", [30.0, 0.01], ids=["in silence", "with heartbeats"])
def test_a_caller_who_leaves_ends_the_work(stream, said, heartbeat_s):
    never = asyncio.Event()
    with serving(by_profile({}, otherwise=(*said, Until(never))), heartbeat_s=heartbeat_s) as gateway:
        with gateway.raw(CHAT, chat_body(stream=stream)) as raw:
            wait_for(lambda: gateway.in_flight() == 1)
            if stream and said:
                raw.until(b"Hel")
        wait_for(lambda: gateway.in_flight() == 0)
        wait_for(lambda: len(gateway.records) == 1)
        assert (gateway.records[0].outcome, gateway.records[0].error) == ("disconnected", "")


def test_a_caller_who_leaves_while_tokens_come_ends_the_work():
    with serving(by_profile({}, otherwise=[step for _ in range(2000) for step in ("x", Pause(0.005))])) as gateway:
        with gateway.raw(CHAT, chat_body(stream=True, max_tokens=400)) as raw:
            raw.until(b'"x"')
        wait_for(lambda: len(gateway.records) == 1)
        assert gateway.records[0].outcome == "disconnected"


def test_a_caller_who_leaves_within_the_body_is_nobody():
    with serving(by_profile({})) as gateway:
        with gateway.connected() as raw:
            raw.send(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ")
            raw.send(gateway.key.encode() + b"\r\ncontent-length: 50\r\n\r\n{")
        assert gateway.chat().status == 200
        assert [record.outcome for record in gateway.records] == ["finished"]


def test_others_go_on_when_one_leaves():
    go = asyncio.Event()
    with serving(by_profile({}, otherwise=("a", Until(go), "b"))) as gateway:
        with gateway.raw(CHAT, chat_body(stream=True)) as staying:
            staying.until(b'"a"')
            with gateway.raw(CHAT, chat_body(stream=True)) as leaving:
                leaving.until(b'"a"')
            wait_for(lambda: gateway.in_flight() == 1)
            gateway.set(go)
            staying.until(b"[DONE]")
        assert sorted(record.outcome for record in gateway.records) == ["disconnected", "finished"]


def test_a_connection_is_good_for_another_request_after_an_answer():
    with serving(by_profile({})) as gateway, gateway.raw(CHAT, chat_body(stream=True)) as raw:
        raw.until(b"[DONE]\n\n\r\n0\r\n\r\n")
        raw.send(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"live" in raw.until(b"}")
        assert gateway.records[0].outcome == "finished"
