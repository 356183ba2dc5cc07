"""
What a connection may do before a key has been looked at, and how long it may keep what it was given.
"""

import asyncio
import time

import pytest

from gateway.backends.scripted import Pause, Until, by_profile
from gateway.transport.connection import ConnectionLimits
from tests.http.gateway import CHAT, Raw, chat_body, serving, wait_for

LINE = b"GET /livez HTTP/1.1\r\nhost: x\r\n"
SMALL = ConnectionLimits(head_bytes=4096)
QUICK = ConnectionLimits(head_s=0.2, stall_s=0.2)


def header_of(nbytes: int) -> bytes:
    """A header that takes so many bytes with its line's end."""
    return b"x-pad: " + b"a" * (nbytes - 9) + b"\r\n"


def rest_of(raw: Raw) -> bytes:
    """Everything that still comes before the connection ends."""
    try:
        while more := raw.socket.recv(65536):
            raw.unread += more
    except ConnectionResetError:
        pass
    return raw.unread


@pytest.mark.parametrize(
    ("over", "status"), [pytest.param(0, b"200", id="at the limit"), pytest.param(1, b"431", id="over it")]
)
def test_the_limit_of_a_head_is_exact(over, status):
    taken = len("/livez") + len("host: x\r\n")
    with serving(by_profile({}), connections=SMALL) as gateway, gateway.connected() as raw:
        raw.send(LINE + header_of(4096 - taken + over) + b"\r\n")
        assert raw.until(b"\r\n").split()[1] == status


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param([LINE, *[header_of(1000)] * 100], id="many headers"),
        pytest.param([LINE, b"x-pad: ", *[b"a" * 1000] * 100], id="one header without an end"),
        pytest.param([b"GET /", *[b"a" * 1000] * 100], id="a path without an end"),
        pytest.param([b"\r\n" * 500] * 100, id="line ends before any request"),
    ],
)
def test_a_flood_of_headers_is_refused_in_openais_shape(flood):
    with serving(by_profile({}), connections=SMALL) as gateway:
        with gateway.connected() as raw:
            for part in flood:
                raw.send(part)
            answer = rest_of(raw)
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert b'"code":"headers_too_large"' in answer
        assert answer.count(b"HTTP/1.1") == 1
        assert gateway.chat().status == 200


def test_trailers_are_of_the_head_too():
    start = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n"
    with serving(by_profile({}), connections=SMALL) as gateway, gateway.connected() as raw:
        raw.send(start)
        for _ in range(100):
            raw.send(header_of(1000))
        assert b"headers_too_large" in rest_of(raw)


def test_a_large_body_is_not_taken_for_a_head():
    text = "a" * 50_000
    with serving(by_profile({}), connections=SMALL) as gateway, gateway.raw(CHAT, chat_body(text)) as raw:
        # Too long for the model, and not for the connection.
        assert b"context_length_exceeded" in raw.until(b"}}")
        raw.send(LINE + b"\r\n" + LINE + b"\r\n")
        for _ in range(2):
            assert b"live" in raw.until(b'"live"}')


def test_what_is_no_http_is_refused_in_openais_shape():
    with serving(by_profile({})) as gateway, gateway.connected() as raw:
        raw.send(b"EHLO example.org\r\n\r\n")
        answer = rest_of(raw)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b'"code":"invalid_http"' in answer


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param([b""], id="nothing"),
        pytest.param([LINE], id="half a head"),
        pytest.param([LINE + b"\r\n", LINE], id="half a second head"),
        pytest.param([LINE + b"\r\n", b"\r\n"], id="a line end after an answer"),
    ],
)
def test_a_head_that_does_not_arrive_is_not_waited_for(sent):
    with serving(by_profile({}), connections=QUICK) as gateway, gateway.connected() as raw:
        for part in sent:
            raw.send(part)
            if part.endswith(b"\r\n\r\n"):
                raw.until(b'"live"}')
        assert rest_of(raw) == b""


def test_an_answer_that_takes_longer_than_a_head_may_is_finished():
    slowly = [step for _ in range(20) for step in ("x", Pause(0.03))]
    with serving(by_profile({}, otherwise=slowly), connections=QUICK) as gateway:
        with gateway.raw(CHAT, chat_body(stream=True)) as raw:
            raw.until(b'"x"')
            raw.send(LINE)  # half of the next request
            raw.until(b"[DONE]")
        assert gateway.records[0].outcome == "finished"


def test_a_caller_who_reads_nothing_is_cut_off():
    # More than the kernel holds for both ends.
    much = [*["x" * 100_000] * 400, Until(asyncio.Event())]
    with serving(by_profile({}, otherwise=much), connections=QUICK) as gateway:
        with gateway.raw(CHAT, chat_body(stream=True)):
            wait_for(lambda: len(gateway.records) == 1)
        assert gateway.records[0].outcome == "disconnected"


def test_a_slow_caller_is_not():
    with serving(by_profile({}, otherwise=["x" * 100_000] * 200), connections=QUICK) as gateway:
        with gateway.raw(CHAT, chat_body(stream=True)) as raw:
            while b"[DONE]" not in raw.unread[-64:]:
                raw.unread += raw.socket.recv(2**18)
                time.sleep(0.005)
        assert gateway.records[0].outcome == "finished"
