"""
One base's text side, from a Hugging Face directory: prompt to ids, ids to text.

Decides what becomes a control token: only what the template itself writes, never what a caller's text contains.
Does not know requests or engines.
"""

import json
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from gateway.domain.answer import Detokenizer
from gateway.domain.errors import InvalidRequest
from gateway.domain.request import Message
from gateway.tokens.detokenizer import Detokenizers
from gateway.tokens.template import ChatTemplate, ChatTemplateError

_SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token")


class TokenizerError(ValueError):
    """A tokenizer directory cannot be used; the text says which file and why."""


class BaseTokenizer:
    """
    Encodes and decodes for one base.

    `eos_ids`: ids that end an answer, the first one being what the engine is told.
    """

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None, eos_ids: tuple[int, ...]) -> None:
        # A file may carry the cut and the padding of its training; a prompt wants neither.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.eos_ids = eos_ids
        self._tokenizer = tokenizer
        self._literal = _literal(tokenizer)
        self._inner_literal = _literal(tokenizer, inner=True)
        self._template = template
        self._detokenizers = Detokenizers(tokenizer)
        added = tokenizer.get_added_tokens_decoder()
        self._special_ids = {token.content: number for number, token in added.items() if token.special}
        specials = [token for token in added.values() if token.special]
        self._special = _any_of([re.escape(token.content) for token in specials])
        self._special_in_text = _any_of(
            [
                # From the beginning of a run of white space alone: from each of its places, a long one takes hours.
                (r"(?:(?<!\s)\s*)?" if token.lstrip else "")
                + re.escape(token.content)
                + (r"\s*" if token.rstrip else "")
                for token in specials
            ]
        )

    @classmethod
    def load(cls, directory: Path) -> "BaseTokenizer":
        """
        Raises:
            TokenizerError: a file is missing or does not fit.
        """
        tokenizer_file = directory / "tokenizer.json"
        try:
            tokenizer = Tokenizer.from_file(str(tokenizer_file))
        except Exception as error:  # the library raises bare Exception
            raise TokenizerError(f"{tokenizer_file} cannot be read as a tokenizer: {error}") from error
        config = _read_json(directory / "tokenizer_config.json")
        special_tokens = {name: text for name in _SPECIAL_NAMES if (text := _token_text(config.get(name))) is not None}
        source = _template_source(directory, config)
        try:
            template = ChatTemplate(source, special_tokens) if source is not None else None
        except ChatTemplateError as error:
            raise TokenizerError(f"{directory}: the chat template {error}") from error
        return cls(tokenizer, template, _eos_ids(directory, tokenizer, special_tokens))

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """
        The chat as prompt ids. A special token's spelling within a message is encoded as the plain text that it is.

        Raises:
            InvalidRequest: the base has no chat template, or its template refuses the messages.
        """
        if self._template is None:
            raise InvalidRequest("this model has no chat template; use /v1/completions", "model")
        if not any(self._special.search(message.content) for message in messages):
            return self._encode(self._tokenizer, self._template.render(messages))
        return self._encode_guarded(messages, self._template)

    def encode_text(self, text: str) -> list[int]:
        """A plain text as prompt ids, with what the tokenizer itself puts around every text."""
        return self._encode(self._literal, text, add_special_tokens=True)

    def detokenizer(self) -> Detokenizer:
        return self._detokenizers.new()

    @staticmethod
    def _encode(tokenizer: Tokenizer, text: str, *, add_special_tokens: bool = False) -> list[int]:
        # A batch of one: unlike `encode`, it lets go of the interpreter's lock, which the event loop needs meanwhile.
        # The fast one leaves out offsets, which nobody here reads.
        return list(tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids)

    def _encode_guarded(self, messages: Sequence[Message], template: ChatTemplate) -> list[int]:
        """Stand-ins take the place of special spellings while the template runs, then each stretch is encoded alone."""
        nonce = secrets.token_hex(8)
        spelled: list[str] = []

        def hide(match: re.Match[str]) -> str:
            spelled.append(match[0])
            return f"\ue000{nonce}{len(spelled) - 1}\ue001"

        hidden = [Message(message.role, self._special.sub(hide, message.content)) for message in messages]
        stand_in = re.compile(f"\ue000{nonce}([0-9]+)\ue001")
        ids: list[int] = []
        for position, piece in enumerate(self._special_in_text.split(template.render(hidden))):
            if position % 2:
                number = self._special_ids.get(piece)
                ids.append(self._special_ids[piece.strip()] if number is None else number)
            elif piece:
                tokenizer = self._inner_literal if position else self._literal
                ids += self._encode(tokenizer, stand_in.sub(lambda match: spelled[int(match[1])], piece))
        return ids


def _literal(tokenizer: Tokenizer, *, inner: bool = False) -> Tokenizer:
    """
    A copy that reads special spellings as text; `inner`: of stretches that follow a special token.

    Some vocabularies put a space before a text's first word alone; encoded by itself, every stretch would get one.
    """
    definition = json.loads(tokenizer.to_str())
    if inner:
        for step in _steps(definition["pre_tokenizer"]):
            if step.get("prepend_scheme") == "first":
                step["prepend_scheme"] = "never"
    literal = Tokenizer.from_str(json.dumps(definition))
    literal.encode_special_tokens = True
    return literal


def _steps(pre_tokenizer: object) -> list[dict[str, object]]:
    match pre_tokenizer:
        case {"type": "Sequence", "pretokenizers": [*steps]}:
            return [inner for step in steps for inner in _steps(step)]
        case dict(step):
            return [step]
    return []


def _any_of(patterns: list[str]) -> re.Pattern[str]:
    """One group that matches any of these, the longest first; nothing where there are none."""
    return re.compile("(" + "|".join(sorted(patterns, key=len, reverse=True)) + ")" if patterns else "(?!)")


def _read_json(path: Path) -> dict[str, object]:
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise TokenizerError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise TokenizerError(f"{path} must hold an object")
    return value


def _token_text(value: object) -> str | None:
    match value:
        case str():
            return value
        case {"content": str(text)}:
            return text
    return None


def _template_source(directory: Path, config: dict[str, object]) -> str | None:
    file = directory / "chat_template.jinja"
    if file.exists():
        return file.read_text("utf-8")
    match config.get("chat_template"):
        case str(source):
            return source
        case [*named]:
            for entry in named:
                match entry:
                    case {"name": "default", "template": str(source)}:
                        return source
    return None


def _eos_ids(directory: Path, tokenizer: Tokenizer, special_tokens: dict[str, str]) -> tuple[int, ...]:
    match _read_json(directory / "generation_config.json").get("eos_token_id"):
        case int(number):
            return (number,)
        case [*numbers]:
            return tuple(number for number in numbers if isinstance(number, int))
    eos: int | None = tokenizer.token_to_id(special_tokens.get("eos_token", ""))
    return () if eos is None else (eos,)
