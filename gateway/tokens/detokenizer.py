"""
Token ids to text, a few at a time, never half a character.

Decides how bytes are gathered into characters. Two kinds of vocabulary are a table from id to bytes: byte-level ones
(GPT-2's kind: Llama 3, Qwen, SmolLM) and those of SentencePiece with byte fallback (Llama 2, Mistral, Gemma). For any
other the tokenizers library decodes a small window of ids again and again. Bytes that make no character become U+FFFD,
never an exception: a model may answer with any ids.

The library's own DecodeStream is passed by: it raises for the rest of an answer once byte tokens made no character.
"""

import codecs
import json
import re
from collections.abc import Callable, Sequence

from tokenizers import Tokenizer

from gateway.domain.answer import Detokenizer

_FALLBACK_BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")


def _byte_alphabet() -> dict[str, int]:
    """The characters that stand for bytes in a byte-level vocabulary. Source: GPT-2's bytes_to_unicode."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


class Detokenizers:
    """Makes a detokenizer for each answer of one base; what can be computed once is computed here."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        decoder = json.loads(tokenizer.to_str())["decoder"]
        self._strip = _leading_spaces(decoder)
        to_bytes = _byte_level(decoder) or _byte_fallback(decoder)
        self._table = None if to_bytes is None else self._bytes_table(to_bytes)

    def new(self) -> Detokenizer:
        if self._table is not None:
            return _ByTable(self._table, self._strip)
        return _ByWindow(self._tokenizer)

    def _bytes_table(self, to_bytes: Callable[[str], bytes]) -> list[bytes]:
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        table = [b""] * (max(vocabulary.values()) + 1)
        added = self._tokenizer.get_added_tokens_decoder()
        for token, number in vocabulary.items():
            if number not in added:
                table[number] = to_bytes(token)
            elif not added[number].special:
                table[number] = added[number].content.encode()
        return table


def _byte_level(decoder: object) -> Callable[[str], bytes] | None:
    match decoder:
        case {"type": "ByteLevel"} | {"type": "Sequence", "decoders": [{"type": "ByteLevel"}]}:
            alphabet = _byte_alphabet()

            def to_bytes(token: str) -> bytes:
                # A token with a character of no byte stands for itself, as the library has it.
                known = all(character in alphabet for character in token)
                return bytes(alphabet[character] for character in token) if known else token.encode()

            return to_bytes
    return None


def _byte_fallback(decoder: object) -> Callable[[str], bytes] | None:
    """For the chain that SentencePiece models are converted to: their mark for a space, bytes, one text, a strip."""
    match decoder:
        case {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": str(mark)}, "content": str(space)},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                *rest,
            ],
        } if not rest or _leading_spaces(decoder):

            def to_bytes(token: str) -> bytes:
                byte = _FALLBACK_BYTE.fullmatch(token)
                return bytes((int(byte[1], 16),)) if byte else token.replace(mark, space).encode()

            return to_bytes
    return None


def _leading_spaces(decoder: object) -> int:
    """How many spaces the chain takes off the beginning of a whole text."""
    match decoder:
        case {"type": "Sequence", "decoders": [_, _, _, {"type": "Strip", "content": " ", "start": int(n), "stop": 0}]}:
            return n
    return 0


class _ByTable:
    """Joins the bytes of tokens and gives what is whole."""

    def __init__(self, table: Sequence[bytes], strip: int) -> None:
        self._table = table
        self._strip = strip
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode

    def feed(self, ids: Sequence[int]) -> str:
        table = self._table
        text = self._decode(b"".join([table[number] for number in ids if number < len(table)]))
        return self._stripped(text) if self._strip and text else text

    def flush(self) -> str:
        return self._decode(b"", True)

    def token_bytes(self, token_id: int) -> bytes:
        return self._table[token_id] if token_id < len(self._table) else b""

    def _stripped(self, text: str) -> str:
        while self._strip and text.startswith(" "):
            text, self._strip = text[1:], self._strip - 1
        if text:
            self._strip = 0
        return text


class _ByWindow:
    """Decodes the newest ids together with a few before them, for tokens whose text depends on their neighbours."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._shown = ""  # what the ids of the window gave so far
        self._start = 0  # where the window begins: after the ids before those that gave text last

    def feed(self, ids: Sequence[int]) -> str:
        return "".join([self._step(number) for number in ids])

    def flush(self) -> str:
        return self._decode(self._ids)[len(self._shown) :]

    def token_bytes(self, token_id: int) -> bytes:
        return self._decode([token_id]).encode()

    def _step(self, number: int) -> str:
        self._ids.append(number)
        text = self._decode(self._ids)
        new = text[len(self._shown) :]
        if not new or new.endswith("\ufffd"):
            return ""
        del self._ids[: self._start]
        self._start = len(self._ids)
        self._shown = self._decode(self._ids)
        return new

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))
