"""
A tenant cannot use, list or detect another's profiles: the answers are those for names that do not exist.
"""

import openai
import pytest

from tests.live.stack import Stack

HELLO = [{"role": "user", "content": "hello"}]


def refusal(client: openai.OpenAI, model: str) -> tuple[int, object, str]:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model=model, messages=HELLO)
    error = caught.value
    return error.status_code, error.code, error.body["message"].replace(model, "MODEL")


def test_models_lists_what_the_key_may_use_and_no_more(stack: Stack) -> None:
    acme = {model.id for model in stack.openai().models.list()}
    globex = {model.id for model in stack.openai(stack.second_api_key).models.list()}
    assert {"tiny", "order-desk", "news-brief", "question-steps", "support-bot", "order-form", "order-slip"} <= acme
    assert globex == {"tiny", "help-desk"}
    assert "help-desk" not in acme


@pytest.mark.parametrize(
    "name", ["order-desk", "order-desk@1", "order-desk@live", "acme/order-desk", "acme/order-desk@1"]
)
def test_a_foreign_profile_is_refused_like_one_that_does_not_exist(stack: Stack, name: str) -> None:
    client = stack.openai(stack.second_api_key)
    assert refusal(client, name) == refusal(client, "no-such-model")
    with pytest.raises(openai.NotFoundError) as foreign:
        client.models.retrieve(name)
    with pytest.raises(openai.NotFoundError) as unknown:
        client.models.retrieve("no-such-model")
    assert foreign.value.body["message"].replace(name, "") == unknown.value.body["message"].replace("no-such-model", "")


@pytest.mark.parametrize(
    "name",
    ["", " ", "tiny ", "../tiny", "tiny@", "tiny@0", "order-desk@9", "order-desk@sha256:00", "a" * 10_000, "\u202e"],
)
def test_a_strange_name_is_a_callers_mistake(stack: Stack, name: str) -> None:
    with pytest.raises((openai.NotFoundError, openai.BadRequestError)):
        stack.openai().chat.completions.create(model=name, messages=HELLO)


def test_a_version_can_be_named_by_number_label_and_digest(stack: Stack) -> None:
    client = stack.openai()
    question = [{"role": "user", "content": "we need pillow in cairo , make it 19 ."}]
    answers = {
        client.chat.completions.create(model=name, messages=question, temperature=0).choices[0].message.content
        for name in ("order-desk", "order-desk@1", "order-desk@live")
    }
    assert len(answers) == 1


@pytest.mark.parametrize("key", ["", "sk-0123", "tlr_AAAAAAAAAAAA_" + "A" * 38])
def test_a_wrong_key_is_refused_with_one_sentence(stack: Stack, key: str) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        stack.openai(key or "x").models.list()
    assert caught.value.code == "invalid_api_key"
    assert not key or key not in str(caught.value)
