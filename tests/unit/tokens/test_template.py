"""
Chat templates as models ship them: the same text as transformers renders, and a refusal where they fail.
"""

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from gateway.domain.errors import InvalidRequest
from gateway.domain.request import Message
from gateway.tokens.template import ChatTemplate, ChatTemplateError

CHAT = [Message("system", "be <brief> & “kind”"), Message("user", "hi\n  there"), Message("assistant", "ja: 語")]


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(
            "{% for m in messages %}[{{ m.role }}] {{ m['content'] | trim }}\n{% endfor %}", id="a plain loop"
        ),
        pytest.param("{{ messages | tojson }}", id="JSON that escapes nothing"),
        pytest.param("{{ messages | tojson(indent=2) }}", id="JSON with an indent"),
        pytest.param("{{ messages | tojson(ensure_ascii=True, sort_keys=True) }}", id="JSON with all of its options"),
        pytest.param("{{ messages | tojson(separators=(',', ':')) }}", id="JSON without spaces"),
        pytest.param(
            "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
            id="a block that marks the assistant's words",
        ),
        pytest.param(
            "{% if tools is not none %}{% for t in tools %}{{ t }}{% endfor %}{% endif %}.", id="tools are none"
        ),
        pytest.param("{% if documents is defined and documents %}docs{% endif %}.", id="no documents"),
        pytest.param("{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}x{% endfor %}", id="a break"),
        pytest.param(
            "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
            id="a namespace",
        ),
        pytest.param("  {% if true %}\n  x\n  {% endif %}\n", id="white space around blocks"),
        pytest.param("{% if add_generation_prompt %}{{ bos_token }}{% endif %}{{ pad_token }}", id="special tokens"),
    ],
)
def test_renders_as_transformers_does(source):
    turns = [{"role": message.role, "content": message.content} for message in CHAT]
    rendered, _ = render_jinja_template(
        conversations=[turns], chat_template=source, add_generation_prompt=True, bos_token="<s>"
    )
    assert ChatTemplate(source, {"bos_token": "<s>"}).render(CHAT) == rendered[0]


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("{{ raise_exception('roles must alternate') }}", id="it raises"),
        pytest.param("{{ nothing.at.all }}", id="it reads what is not there"),
        pytest.param("{{ messages[0].content + 1 }}", id="it adds a number to a text"),
        pytest.param("{{ messages[0].content | int // 0 }}", id="it divides by zero"),
        pytest.param("{{ messages[7].content.x }}", id="it looks past the end"),
        pytest.param("{{ range(10 ** 9) | list }}", id="it makes a huge list"),
        pytest.param("{{ ''.__class__.__mro__[1].__subclasses__() }}", id="it leaves the sandbox"),
        pytest.param("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", id="it never ends"),
    ],
)
def test_a_template_that_fails_is_the_messages_fault_and_no_crash(source):
    with pytest.raises(InvalidRequest, match="chat template") as refusal:
        ChatTemplate(source, {}).render(CHAT)
    assert refusal.value.param == "messages"


def test_the_templates_own_sentence_reaches_the_caller():
    with pytest.raises(InvalidRequest, match="roles must alternate"):
        ChatTemplate("{{ raise_exception('roles must alternate') }}", {}).render(CHAT)


def test_what_a_caller_writes_is_never_run():
    source = "{% for m in messages %}{{ m.content }}{% endfor %}"
    assert ChatTemplate(source, {}).render([Message("user", "{{ 7 * 7 }}{% raw %}")]) == "{{ 7 * 7 }}{% raw %}"


@pytest.mark.parametrize("source", ["{% for %}", "{{ 1", "{% tool %}x{% endtool %}", "{{ x | shout }}"])
def test_a_template_that_is_none_is_refused_when_it_is_read(source):
    with pytest.raises(ChatTemplateError):
        ChatTemplate(source, {})
