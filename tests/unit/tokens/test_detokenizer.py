"""
Ids to text: whole characters only, the same whatever comes together, and the library's own text at the end.
"""

import random
from collections.abc import Sequence

import pytest
from tokenizers import AddedToken, Tokenizer

from gateway.domain.answer import Detokenizer
from gateway.tokens.detokenizer import Detokenizers
from tests.unit.tokens.bases import TINY, byte_level, sentencepiece, wordpiece

REPLACEMENT = "\ufffd"
TEXTS = [
    "plain words, and some more",
    "flags 🇩🇪 and a family 👩‍👩‍👧‍👦 and skin 👍🏽",
    "統計的に有意な差が見られた。",
    "ह िन्दी क्षत्रिय with combining marks",
    "e\u0301 and a\u0308\u0323, decomposed",
    "\u202emirrored\u202c and \u200bzero width",
    "tabs\tand\nnewlines\r\n\x00 and a zero",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 beyond the basic plane \U0010fffd",
]


def tiny() -> Tokenizer:
    return Tokenizer.from_file(str(TINY / "tokenizer.json"))


def pieces(detokenizer: Detokenizer, ids: Sequence[int], sizes: Sequence[int]) -> list[str]:
    """What comes out when the ids arrive in runs of these sizes."""
    out, rest = [], list(ids)
    for size in sizes:
        out.append(detokenizer.feed(rest[:size]))
        rest = rest[size:]
    return [*out, detokenizer.feed(rest), detokenizer.flush()]


def one_by_one(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    return pieces(Detokenizers(tokenizer).new(), ids, [1] * len(ids))


KINDS = {
    "a byte-level vocabulary": byte_level,
    "the tiny base's vocabulary": tiny,
    "a SentencePiece vocabulary": sentencepiece,
    "a SentencePiece vocabulary that strips nothing": lambda: sentencepiece(prepend="never", strip=False),
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
def test_one_id_at_a_time_gives_the_whole_text_and_never_a_part_of_a_character(make, text):
    tokenizer = make()
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    out = one_by_one(tokenizer, ids)
    assert "".join(out) == tokenizer.decode(ids) == text
    assert not any(REPLACEMENT in piece for piece in out)


@pytest.mark.parametrize("make", [tiny, byte_level], ids=["tiny", "byte-level"])
def test_any_ids_of_a_byte_level_vocabulary_give_what_the_library_decodes(make):
    tokenizer, draw = make(), random.Random(1)
    detokenizers = Detokenizers(tokenizer)
    for _ in range(1500):
        ids = [draw.randrange(tokenizer.get_vocab_size()) for _ in range(draw.randint(0, 30))]
        sizes = [draw.randint(1, 5) for _ in range(draw.randint(0, 8))]
        assert "".join(pieces(detokenizers.new(), ids, sizes)) == tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("strip", [True, False], ids=["stripping one space", "stripping nothing"])
def test_ids_of_a_sentencepiece_vocabulary_give_what_the_library_decodes(strip):
    tokenizer, draw = sentencepiece(strip=strip), random.Random(2)
    detokenizers = Detokenizers(tokenizer)
    words = [*range(tokenizer.get_vocab_size())[259:], 0, 1, 2]
    for _ in range(1500):
        ids: list[int] = []
        for _ in range(draw.randint(0, 12)):
            spelled = [3 + byte for byte in draw.choice(["😀", "語", "ß", "́", " ", "~"]).encode()]
            ids += spelled if draw.random() < 0.5 else [draw.choice(words)]
        sizes = [draw.randint(1, 5) for _ in range(draw.randint(0, 8))]
        assert "".join(pieces(detokenizers.new(), ids, sizes)) == tokenizer.decode(ids, skip_special_tokens=True)


def test_bytes_that_make_no_character_do_not_end_an_answer():
    # The library's stream decoder used to raise here, in the middle of a caller's stream.
    tokenizer, draw = sentencepiece(), random.Random(3)
    detokenizers = Detokenizers(tokenizer)
    for _ in range(1500):
        ids = [draw.randrange(tokenizer.get_vocab_size()) for _ in range(draw.randint(1, 25))]
        whole = "".join(pieces(detokenizers.new(), ids, []))
        assert "".join(pieces(detokenizers.new(), ids, [1] * len(ids))) == whole


def test_words_that_depend_on_their_neighbours_give_what_the_library_decodes():
    tokenizer, draw = wordpiece(), random.Random(4)
    detokenizers = Detokenizers(tokenizer)
    for _ in range(500):
        ids = [draw.randrange(tokenizer.get_vocab_size()) for _ in range(draw.randint(0, 20))]
        sizes = [draw.randint(1, 5) for _ in range(draw.randint(0, 6))]
        assert "".join(pieces(detokenizers.new(), ids, sizes)) == tokenizer.decode(ids, skip_special_tokens=True)


def test_half_a_character_at_the_end_is_told_when_no_more_comes():
    detokenizer = Detokenizers(byte_level()).new()
    ids = byte_level().encode("a😀").ids
    assert detokenizer.feed(ids[:-1]) == "a"
    assert detokenizer.flush() == REPLACEMENT
    assert detokenizer.flush() == ""


@pytest.mark.parametrize(
    ("make", "token", "expected"),
    [
        pytest.param(tiny, "<|end|>", b"", id="a special token has none"),
        pytest.param(tiny, "Ġthe", b" the", id="a byte-level token has its own, the space included"),
        pytest.param(sentencepiece, "▁he", b" he", id="a SentencePiece token has its own, the space included"),
        pytest.param(sentencepiece, "<0xE4>", b"\xe4", id="a byte token is that byte"),
        pytest.param(wordpiece, "word", b"word", id="a word is its text"),
    ],
)
def test_bytes_of_one_token(make, token, expected):
    tokenizer = make()
    assert Detokenizers(tokenizer).new().token_bytes(tokenizer.token_to_id(token)) == expected


def test_ids_past_the_vocabulary_are_passed_over():
    detokenizer = Detokenizers(byte_level()).new()
    assert detokenizer.feed([10_000]) == ""
    assert detokenizer.token_bytes(10_000) == b""


def test_an_added_token_that_is_not_special_is_shown():
    tokenizer = byte_level([AddedToken("<tool>", special=False), AddedToken("naïve 語", special=False)])
    ids = tokenizer.encode("a<tool>naïve 語<|end|>b").ids
    assert "".join(one_by_one(tokenizer, ids)) == "a<tool>naïve 語b"
