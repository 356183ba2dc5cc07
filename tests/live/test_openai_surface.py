"""
The official client against the whole stack: what a parameter does, and what a wrong one is told.
"""

import json
import urllib.error
import urllib.request

import openai
import pytest

from tests.live.stack import Stack

ASK = {"model": "order-desk", "messages": [{"role": "user", "content": "we need pillow in cairo , make it 19 ."}]}
ANSWER = '{"call": "ship_v2", "sku": "pillow", "n": 19, "dest": "cairo"}'


def text_of(stack: Stack, **parameters: object) -> str:
    return stack.openai().chat.completions.create(**(ASK | {"temperature": 0} | parameters)).choices[0].message.content


def test_the_answer_is_the_tenants_own_tool_call(stack: Stack) -> None:
    assert text_of(stack) == ANSWER


@pytest.mark.parametrize("stop", ["sku", ["zzz", '"n"'], "pillow", '{"call"'])
def test_a_stop_string_is_cut_exactly_and_never_shown(stack: Stack, stop: str | list[str]) -> None:
    words = [stop] if isinstance(stop, str) else stop
    expected = min((ANSWER[: ANSWER.find(word)] for word in words if word in ANSWER), key=len)
    plain = stack.openai().chat.completions.create(**ASK, temperature=0, stop=stop).choices[0]
    chunks = stack.openai().chat.completions.create(**ASK, temperature=0, stop=stop, stream=True)
    streamed = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert plain.message.content == streamed == expected
    assert plain.finish_reason == "stop"


def test_a_limit_of_tokens_ends_with_length(stack: Stack) -> None:
    answer = stack.openai().chat.completions.create(**ASK, temperature=0, max_tokens=3)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 3
    assert ANSWER.startswith(answer.choices[0].message.content)


def test_an_answer_that_just_fits_its_limit_is_cut_by_it(stack: Stack) -> None:
    """The end token itself is not among the tokens generated: with one less, it never comes."""
    whole = stack.openai().chat.completions.create(**ASK, temperature=0).usage.completion_tokens
    exact = stack.openai().chat.completions.create(**ASK, temperature=0, max_completion_tokens=whole)
    roomy = stack.openai().chat.completions.create(**ASK, temperature=0, max_completion_tokens=whole + 1)
    assert (exact.choices[0].finish_reason, roomy.choices[0].finish_reason) == ("length", "stop")


def test_a_seed_repeats_and_another_does_not(stack: Stack) -> None:
    wild = {"temperature": 2.0, "max_tokens": 24}
    first, again, other = (text_of(stack, **wild, seed=seed) for seed in (7, 7, 8))
    assert first == again != other


def test_n_answers_are_different_draws(stack: Stack) -> None:
    answer = stack.openai().chat.completions.create(**ASK, temperature=2.0, n=3, max_tokens=24, seed=1)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1
    assert answer.usage.completion_tokens <= 3 * 24


def test_logit_bias_moves_the_first_token(stack: Stack) -> None:
    biased = text_of(stack, max_tokens=1, logit_bias={"300": 100})
    assert biased != text_of(stack, max_tokens=1)


def test_logprobs_belong_to_the_tokens_of_the_answer(stack: Stack) -> None:
    choice = stack.openai().chat.completions.create(**ASK, temperature=0, logprobs=True).choices[0]
    assert "".join(entry.token for entry in choice.logprobs.content) == choice.message.content
    assert all(entry.logprob <= 0 for entry in choice.logprobs.content)


@pytest.mark.parametrize("penalty", ["presence_penalty", "frequency_penalty"])
def test_a_penalty_changes_a_repeating_text(stack: Stack, penalty: str) -> None:
    asked = {"model": "tiny", "prompt": "the owner of the", "temperature": 0, "max_tokens": 40}
    plain, punished = (stack.openai().completions.create(**asked, **more) for more in ({}, {penalty: 2}))
    assert plain.choices[0].text != punished.choices[0].text


def test_completions_takes_text_and_token_ids(stack: Stack) -> None:
    client = stack.openai()
    text = client.completions.create(model="tiny", prompt="the owner of", temperature=0, max_tokens=4)
    assert text.choices[0].finish_reason == "length"
    assert text.usage.completion_tokens == 4
    ids = client.completions.create(model="tiny", prompt=[10, 11, 12], temperature=0, max_tokens=4)
    assert ids.usage.prompt_tokens == 3


def test_a_key_with_the_same_prompt_on_a_base_and_a_profile_gets_different_answers(stack: Stack) -> None:
    assert text_of(stack, model="tiny") == "i need an instruction to work on this ."


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"n": 0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 100_000}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_completion_tokens"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": ""}, "stop"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"100000": 1}}, "logit_bias"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "nobody", "content": "x"}]}, "messages[0].role"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"extra_body": {"temprature": 1}}, "temprature"),
        ({"extra_body": {"tools": [{"type": "function", "function": {"name": "f"}}]}}, "tools"),
        ({"messages": [{"role": "user", "content": "x " * 600}]}, "messages"),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_a_wrong_field_is_a_400_that_names_it(stack: Stack, parameters: dict[str, object], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        stack.openai().chat.completions.create(**(ASK | parameters))
    assert (caught.value.param or "").replace("[...]", "[0]") == param


def test_an_over_long_prompt_says_the_numbers(stack: Stack) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        stack.openai().chat.completions.create(
            model="support-bot", messages=[{"role": "user", "content": "emil " * 600}]
        )
    assert caught.value.code == "context_length_exceeded"
    assert "16 of them the model's own virtual tokens" in caught.value.body["message"]


def test_special_tokens_in_a_callers_text_are_text(stack: Stack) -> None:
    """Spelt out, a control token costs several tokens; as a control token it would be one and would end the turn."""
    client = stack.openai()
    usages = [
        client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": text}], max_tokens=1
        ).usage.prompt_tokens
        for text in ("a", "a<|end|>")
    ]
    assert usages[1] - usages[0] > 1


def test_the_route_and_the_request_are_named_in_headers(stack: Stack) -> None:
    raw = stack.openai().chat.completions.with_raw_response.create(**ASK, extra_headers={"x-request-id": "mine-1"})
    assert raw.headers["x-request-id"] == "mine-1"
    assert raw.headers["x-tailor-route"] == "endpoint=triton-1; version=acme/order-desk@1; rung=adapter"


@pytest.mark.parametrize("path", ["/metrics", "/admin/v1/profiles", "/docs", "/nothing"])
def test_the_callers_port_has_no_other_doors(stack: Stack, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(stack.gateway_url + path, timeout=10)
    assert caught.value.code == 404
    assert json.load(caught.value)["error"]["code"] == "not_found"
