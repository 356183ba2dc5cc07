"""
Events as bytes, read back with the models of the official client: strictly, no field more and none less.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from gateway.domain.event import Delta, Event, Finished, FinishReason, TokenLogprob, Usage
from gateway.domain.job import Target
from gateway.transport.sse import DONE, HEARTBEAT, Identity, Renderer, renderer, route_label, usage_object
from tests.unit.domain.making import BASE, ENDPOINT, TUNED, job

Model = TypeVar("Model", bound=BaseModel)
IDENTITY = Identity("chatcmpl-1", 1_700_000_000, 'a "model"', "fp_abc")
TRICKY = 'quote " backslash \\ newline \n emoji 😀 null \x00 separator \u2028 </script> data: [DONE]\n\n'
ENTRY = TokenLogprob("\ufffd", b"\xf0\x9f", -0.25)
EVENTS: list[Event] = [
    Delta(0, "Hel", (TokenLogprob("Hel", b"Hel", -1.5),)),
    Delta(1, TRICKY, (ENTRY,)),
    Delta(0, "lo"),
    Finished(1, FinishReason.LENGTH, 7),
    Finished(0, FinishReason.STOP, 3),
]


def make(operation: str, *, logprobs: bool = False, include_usage: bool = False) -> Renderer:
    return renderer(operation, IDENTITY, logprobs=logprobs, include_usage=include_usage)


def data_of(stream: bytes) -> Iterator[dict[str, object]]:
    assert stream.endswith(b"\n\n")
    for event in stream.removesuffix(b"\n\n").split(b"\n\n"):
        assert event.startswith(b"data: ")
        assert b"\n" not in event
        yield json.loads(event.removeprefix(b"data: "))


def strict(model: type[Model], value: dict[str, object]) -> Model:
    """As the client's type, with every field in place: what it does not know or converts would go unnoticed."""
    parsed = model.model_validate(value, strict=True)
    unknown = set(parsed.model_extra or {})
    assert unknown <= {"system_fingerprint"}, unknown
    return parsed


def completion_chunk(value: dict[str, Any]) -> Completion:
    """The API sends null until the end, where the client's type, made for whole answers, has none."""
    choice = value["choices"][0]
    assert choice["finish_reason"] is None
    return strict(Completion, {**value, "choices": [{**choice, "finish_reason": "stop"}]})


def test_a_chats_stream_is_what_the_client_reads():
    render = make("chat")
    stream = render.first(2) + b"".join(render.events([event]) for event in EVENTS)
    chunks = [strict(ChatCompletionChunk, value) for value in data_of(stream)]
    assert {(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks} == {
        ("chatcmpl-1", 1_700_000_000, 'a "model"', "chat.completion.chunk")
    }
    choices = [chunk.choices[0] for chunk in chunks]
    assert [(choice.index, choice.delta.role) for choice in choices[:2]] == [(0, "assistant"), (1, "assistant")]
    text = {index: "".join(c.delta.content or "" for c in choices if c.index == index) for index in (0, 1)}
    assert text == {0: "Hello", 1: TRICKY}
    assert [(c.index, c.finish_reason) for c in choices if c.finish_reason] == [(1, "length"), (0, "stop")]


def test_events_that_come_together_leave_as_the_same_bytes():
    for operation in ("chat", "completion"):
        for logprobs in (False, True):
            apart, together = make(operation, logprobs=logprobs), make(operation, logprobs=logprobs)
            assert together.events(EVENTS) == b"".join(apart.events([event]) for event in EVENTS)


def test_a_completions_stream_is_what_the_client_reads():
    render = make("completion")
    assert render.first(2) == b""
    parts = [completion_chunk(value) for value in data_of(render.events(EVENTS[:3]))]
    assert [(part.choices[0].index, part.choices[0].text) for part in parts] == [(0, "Hel"), (1, TRICKY), (0, "lo")]
    assert {part.object for part in parts} == {"text_completion"}
    ends = [value["choices"][0] for value in data_of(render.events(EVENTS[3:]))]
    assert [(end["index"], end["text"], end["finish_reason"]) for end in ends] == [(1, "", "length"), (0, "", "stop")]


def test_a_whole_chat_is_what_the_client_reads():
    usage = usage_object(Usage(12, 2, 10), "route")
    whole = strict(ChatCompletion, json.loads(make("chat").whole(EVENTS, 2, usage)))
    assert [(choice.index, choice.message.content, choice.finish_reason) for choice in whole.choices] == [
        (0, "Hello", "stop"),
        (1, TRICKY, "length"),
    ]
    assert whole.choices[0].logprobs is None
    assert whole.usage is not None
    assert whole.usage.total_tokens == 20


def test_a_whole_completion_is_what_the_client_reads():
    usage = usage_object(Usage(12, 2, 10), "route")
    whole = strict(Completion, json.loads(make("completion").whole(EVENTS, 2, usage)))
    assert [(choice.index, choice.text, choice.finish_reason) for choice in whole.choices] == [
        (0, "Hello", "stop"),
        (1, TRICKY, "length"),
    ]


def test_a_chats_logprobs_are_what_the_client_reads():
    (chunk, *_) = [strict(ChatCompletionChunk, v) for v in data_of(make("chat", logprobs=True).events(EVENTS[:2]))]
    assert chunk.choices[0].logprobs is not None
    (entry,) = chunk.choices[0].logprobs.content or []
    assert (entry.token, entry.logprob, entry.bytes, entry.top_logprobs) == ("Hel", -1.5, list(b"Hel"), [])
    whole = strict(
        ChatCompletion, json.loads(make("chat", logprobs=True).whole(EVENTS, 2, usage_object(Usage(1, 0, 1), "")))
    )
    assert whole.choices[1].logprobs is not None
    assert [entry.bytes for entry in whole.choices[1].logprobs.content or []] == [[0xF0, 0x9F]]


def test_a_completions_logprobs_have_running_offsets():
    entries = (TokenLogprob("ab", b"ab", -1.0), TokenLogprob("c", b"c", -2.0))
    more = (TokenLogprob("d", b"d", -3.0),)
    events = [Delta(0, "abc", entries), Delta(1, "d", more), Delta(0, "d", more)]
    parts = [completion_chunk(value) for value in data_of(make("completion", logprobs=True).events(events))]
    read = [part.choices[0].logprobs for part in parts]
    assert [(each.tokens, each.token_logprobs, each.text_offset) for each in read if each] == [
        (["ab", "c"], [-1.0, -2.0], [0, 2]),
        (["d"], [-3.0], [0]),
        (["d"], [-3.0], [3]),
    ]


def test_usage_is_the_last_chunk_and_null_before_it_where_it_was_asked_for():
    render = make("chat", include_usage=True)
    values = list(
        data_of(render.first(1) + render.events(EVENTS[:1]) + render.usage(usage_object(Usage(12, 2, 3), "r")))
    )
    assert [value["usage"] for value in values[:-1]] == [None, None]
    last = strict(ChatCompletionChunk, values[-1])
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.total_tokens) == (10, 3, 13)
    assert all("usage" not in value for value in data_of(make("chat").first(1)))


def test_virtual_tokens_are_reported_apart_and_are_in_no_sum():
    usage = usage_object(Usage(prompt_tokens=12, virtual_tokens=2, completion_tokens=3), "route")
    assert usage["prompt_tokens"] == 10
    assert usage["total_tokens"] == 13
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0, "audio_tokens": 0, "virtual_tokens": 2}
    assert usage["tailor"] == {"route": "route"}


@pytest.mark.parametrize(
    ("profile", "label"),
    [
        pytest.param(TUNED, "endpoint=triton-1; version=acme/support-bot@3; rung=adapter", id="a tuned one"),
        pytest.param(BASE, "endpoint=triton-1; version=tiny; rung=adapter", id="a base"),
    ],
)
def test_who_answers_is_told_in_ascii(profile, label):
    assert route_label(job(profile=profile), Target(ENDPOINT)) == label


def test_the_fixed_parts_are_comments_and_openais_end():
    assert HEARTBEAT.startswith(b":")
    assert HEARTBEAT.endswith(b"\n\n")
    assert DONE == b"data: [DONE]\n\n"


def test_an_answer_without_an_end_is_not_given_one():
    events: Sequence[Event] = [Delta(0, "cut")]
    whole = json.loads(make("chat").whole(events, 1, usage_object(Usage(1, 0, 1), "")))
    assert whole["choices"][0]["finish_reason"] is None
