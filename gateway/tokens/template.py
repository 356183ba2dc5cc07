"""
A chat as the one text its base was trained on.

Decides how a model's own chat template is run: sandboxed, with the variables, filters and tags that such templates
are written against. Does not know tokens.

Source: transformers, utils/chat_template_utils.py.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gateway.domain.errors import InvalidRequest
from gateway.domain.request import Message


class ChatTemplateError(ValueError):
    """The template itself cannot be used; the text says where and why."""


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Not Jinja's own filter: it escapes for HTML, and models were trained on plain JSON.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


class _GenerationBlock(Extension):
    """`{% generation %}` marks what the assistant says, for training; when serving, only its content counts."""

    tags = {"generation"}  # noqa: RUF012 - declared so by Jinja

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """One model's chat template, compiled once."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """
        Raises:
            ChatTemplateError: it is not a Jinja template, or uses a tag or filter that chat templates do not have.
        """
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationBlock]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = _now
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise ChatTemplateError(f"is not a chat template that can be used: {error}") from error
        self._special_tokens = dict(special_tokens)

    def render(self, messages: Sequence[Message]) -> str:
        """
        The whole prompt, ending where the assistant begins to speak.

        Raises:
            InvalidRequest: the template refuses these messages, or fails on them.
        """
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            # Templates ask whether tools and documents are none, and take an undefined one for a list.
            return self._template.render(
                messages=turns, tools=None, documents=None, add_generation_prompt=True, **self._special_tokens
            )
        except TemplateError as error:
            raise InvalidRequest(f"the model's chat template refuses these messages: {error}", "messages") from error
        except Exception as error:  # a template is a program of the model's author; it may fail in any way
            raise InvalidRequest("the model's chat template fails on these messages", "messages") from error
