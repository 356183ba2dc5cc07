"""
Answers as the official client gets them: streamed and whole, chats and completions, one and several.
"""

import asyncio

import pytest
from openai import AsyncOpenAI

from gateway.backends.scripted import Say, by_profile, by_prompt, last_words
from tests.http.gateway import CHAT, COMPLETIONS, chat_body, events_of, serving

HI = [{"role": "user", "content": "hi"}]
PIECES = ("Hel", "lo", " wörld", " 😀")
TEXT = "".join(PIECES)


@pytest.fixture(scope="module")
def gateway():
    with serving(by_profile({}, otherwise=PIECES)) as running:
        yield running


def test_a_whole_chat(gateway):
    answer = gateway.client().chat.completions.create(model="support-bot", messages=HI)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", TEXT, "stop")
    assert answer.model == "support-bot"
    assert answer.id.startswith("chatcmpl-")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 4


def test_a_streamed_chat(gateway):
    stream = gateway.client().chat.completions.create(model="support-bot", messages=HI, stream=True)
    chunks = list(stream)
    assert [chunk.choices[0].delta.role for chunk in chunks[:1]] == ["assistant"]
    assert [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content] == list(PIECES)
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "stop"
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


def test_a_streams_bytes(gateway):
    reply = gateway.chat(stream=True)
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["cache-control"] == "no-cache"
    assert reply.headers["x-tailor-route"] == "endpoint=triton-1; version=acme/support-bot@3; rung=adapter"
    assert events_of(reply.body)[-1] == b"[DONE]"
    assert reply.body.count(b"[DONE]") == 1


def test_a_whole_answers_headers(gateway):
    reply = gateway.chat()
    assert reply.headers["content-type"] == "application/json"
    assert int(reply.headers["content-length"]) == len(reply.body)
    assert reply.headers["x-tailor-route"] == "endpoint=triton-1; version=acme/support-bot@3; rung=adapter"
    assert "server" not in reply.headers


def test_usage_comes_last_in_a_stream_that_asks_for_it(gateway):
    stream = gateway.client().chat.completions.create(
        model="faq", messages=HI, stream=True, stream_options={"include_usage": True}
    )
    *before, last = list(stream)
    assert all(chunk.usage is None and chunk.choices for chunk in before)
    assert last.choices == []
    assert last.usage is not None
    details = last.usage.prompt_tokens_details
    assert details is not None
    assert details.model_extra == {"virtual_tokens": 2}
    whole = gateway.client().chat.completions.create(model="faq", messages=HI)
    assert whole.usage == last.usage


def test_a_whole_completion(gateway):
    answer = gateway.client().completions.create(model="support-bot", prompt="once")
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (TEXT, "stop")
    assert answer.id.startswith("cmpl-")


def test_a_streamed_completion(gateway):
    parts = list(gateway.client().completions.create(model="support-bot", prompt="once", stream=True))
    assert "".join(part.choices[0].text for part in parts) == TEXT
    assert parts[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    "prompt", ["once", ["once"], [1, 2, 3], [[1, 2, 3]]], ids=["text", "one text", "ids", "one list"]
)
def test_the_forms_of_a_prompt(gateway, prompt):
    answer = gateway.client().completions.create(model="support-bot", prompt=prompt)
    assert answer.choices[0].text == TEXT


def test_max_tokens_end_an_answer_with_its_length(gateway):
    answer = gateway.client().chat.completions.create(model="support-bot", messages=HI, max_completion_tokens=2)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("Hello", "length")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_is_never_seen(gateway, stream):
    reply = gateway.chat(stop="o w", stream=stream)
    assert b"wor" not in reply.body
    assert b'"stop"' in reply.body
    texts = gateway.client().chat.completions.create(model="support-bot", messages=HI, stop=["o w", "zzz"])
    assert texts.choices[0].message.content == "Hell"


def test_several_answers(gateway):
    whole = gateway.client().chat.completions.create(model="support-bot", messages=HI, n=2)
    assert [(choice.index, choice.message.content) for choice in whole.choices] == [(0, TEXT), (1, TEXT)]
    texts = ["", ""]
    ends = []
    for chunk in gateway.client().chat.completions.create(model="support-bot", messages=HI, n=2, stream=True):
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        ends += [choice.index] if choice.finish_reason else []
    assert texts == [TEXT, TEXT]
    assert sorted(ends) == [0, 1]


def test_logprobs_of_a_chat(gateway):
    whole = gateway.client().chat.completions.create(model="support-bot", messages=HI, logprobs=True)
    logprobs = whole.choices[0].logprobs
    assert logprobs is not None
    assert [entry.token for entry in logprobs.content or []] == list(PIECES)
    assert {entry.logprob for entry in logprobs.content or []} == {-0.5}
    streamed = gateway.client().chat.completions.create(model="support-bot", messages=HI, logprobs=True, stream=True)
    entries = [e for chunk in streamed if (lp := chunk.choices[0].logprobs) for e in lp.content or []]
    assert [entry.token for entry in entries] == list(PIECES)


def test_logprobs_of_a_completion(gateway):
    answer = gateway.client().completions.create(model="support-bot", prompt="once", logprobs=0)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert (logprobs.tokens, logprobs.text_offset) == (list(PIECES), [0, 3, 5, 11])


def test_a_model_by_version_digest_grant_or_base(gateway):
    for name in ("support-bot@3", "support-bot@live", "acme/support-bot", "globex/shared-bot", "tiny"):
        assert gateway.client().chat.completions.create(model=name, messages=HI).choices[0].message.content == TEXT
    assert gateway.records[-1].rung == "base"


def test_many_streams_at_once_each_get_their_own():
    with serving(lambda job, _: [f"{last_words(job)}/{number} " for number in range(20)]) as gateway:

        async def one(client: AsyncOpenAI, name: str) -> str:
            stream = await client.chat.completions.create(
                model="support-bot", messages=[{"role": "user", "content": name}], stream=True
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        async def everybody() -> list[str]:
            async with AsyncOpenAI(base_url=gateway.url, api_key=gateway.key, max_retries=0) as client:
                return await asyncio.gather(*(one(client, f"caller{number}") for number in range(64)))

        texts = asyncio.run(everybody())
        assert texts == ["".join(f"caller{n}/{i} " for i in range(20)) for n in range(64)]
        assert {record.outcome for record in gateway.records} == {"finished"}
        assert len(gateway.records) == 64


def test_tokens_that_arrive_together_leave_in_one_write(gateway):
    with (
        serving(by_prompt({"hi": [Say(("a", "b", "c"))]})) as batching,
        batching.raw(CHAT, chat_body(stream=True)) as raw,
    ):
        received = raw.until(b"\r\n0\r\n\r\n")
    # The chunks of the transfer encoding are the application's writes: headers, then content, the end, and [DONE].
    writes = [part for part in received.split(b"\r\n") if part.startswith(b"data: ")]
    assert len(writes) <= 3
    assert b'"content":"abc"' in writes[0]


def test_an_answer_may_have_no_text(gateway):
    with serving(by_profile({}, otherwise=())) as silent:
        answer = silent.client().chat.completions.create(model="support-bot", messages=HI)
        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("", "stop")
        chunks = list(silent.client().chat.completions.create(model="support-bot", messages=HI, stream=True))
        assert chunks[-1].choices[0].finish_reason == "stop"


def test_what_is_recorded_of_a_request(gateway):
    reply = gateway.request(
        "POST", COMPLETIONS, {"model": "faq", "prompt": "hi", "stream": True}, {"x-request-id": "me.1"}
    )
    assert reply.headers["x-request-id"] == "me.1"
    record = gateway.records[-1]
    assert (record.request_id, record.tenant, record.operation, record.stream) == ("me.1", "acme", "completion", True)
    assert (record.model, record.profile_version, record.endpoint) == ("faq", 1, "triton-1")
    assert (record.outcome, record.error) == ("finished", "")
    assert record.usage.virtual_tokens == 2
    assert 0 < record.started_s <= record.sent_s <= record.first_content_s <= record.ended_s
