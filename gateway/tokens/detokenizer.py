"""
Token ids to text, a few at a time, never half a character.

Decides how bytes are gathered into characters. Byte-level vocabularies (GPT-2's kind: Llama 3, Qwen, SmolLM) are a
table from id to bytes; for any other the tokenizers library's own stream decoder is asked.
"""

import codecs
import json
from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from gateway.domain.answer import Detokenizer


def _byte_alphabet() -> dict[str, int]:
    """The characters that stand for bytes in a byte-level vocabulary. Source: GPT-2's bytes_to_unicode."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _is_byte_level(decoder: object) -> bool:
    match decoder:
        case {"type": "ByteLevel"}:
            return True
        case {"type": "Sequence", "decoders": [*steps]}:
            return any(_is_byte_level(step) for step in steps)
    return False


class Detokenizers:
    """Makes a detokenizer for each answer of one base; what can be computed once is computed here."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._table = self._bytes_table() if _is_byte_level(json.loads(tokenizer.to_str())["decoder"]) else None

    def new(self) -> Detokenizer:
        if self._table is not None:
            return _ByteLevel(self._table)
        return _Streamed(self._tokenizer)

    def _bytes_table(self) -> list[bytes]:
        alphabet = _byte_alphabet()
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        table = [b""] * (max(vocabulary.values()) + 1)
        added = self._tokenizer.get_added_tokens_decoder()
        for token, number in vocabulary.items():
            if number in added:
                table[number] = b"" if added[number].special else added[number].content.encode()
            else:
                table[number] = bytes(alphabet[character] for character in token)
        return table


class _ByteLevel:
    """Joins the bytes of byte-level tokens and gives what is whole."""

    def __init__(self, table: Sequence[bytes]) -> None:
        self._table = table
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode

    def feed(self, ids: Sequence[int]) -> str:
        table = self._table
        return self._decode(b"".join([table[number] for number in ids if number < len(table)]))

    def flush(self) -> str:
        return self._decode(b"", True)

    def token_bytes(self, token_id: int) -> bytes:
        return self._table[token_id] if token_id < len(self._table) else b""


class _Streamed:
    """The library's stream decoder, for vocabularies whose tokens depend on their neighbours."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._ids: list[int] = []
        self._given = 0

    def feed(self, ids: Sequence[int]) -> str:
        self._ids.extend(ids)
        text = "".join([self._stream.step(self._tokenizer, number) or "" for number in ids])
        self._given += len(text)
        return text

    def flush(self) -> str:
        # The stream decoder keeps back what ends within a character; decoding the whole shows it.
        return str(self._tokenizer.decode(self._ids, skip_special_tokens=True))[self._given :]

    def token_bytes(self, token_id: int) -> bytes:
        return str(self._tokenizer.decode([token_id], skip_special_tokens=True)).encode()
