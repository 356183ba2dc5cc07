"""Stop and bad words: the wire's encoding, and matching."""

import pytest
from tailor_engine.errors import EnqueueError
from tailor_engine.words import banned_next, decode_words, ends_with_word


@pytest.mark.parametrize(
    ("flat", "words"),
    [
        ([], ()),
        ([5, 6, 9, 2, 3, -1], ((5, 6), (9,))),
        ([5, 6, 9, 3, -1, -1], ((5, 6, 9),)),
        ([5, 6, 9, 1, 2, 3], ((5,), (6,), (9,))),
        ([5, 0, 1, -1], ((5,),)),
        ([0, -1], ()),
    ],
    ids=["none", "two words", "one word", "as many as ids", "padded ids", "only padding"],
)
def test_words_are_cut_at_their_offsets(flat: list[int], words: tuple[tuple[int, ...], ...]) -> None:
    assert decode_words(flat) == words


@pytest.mark.parametrize(
    ("flat", "text"),
    [
        ([1, 2, 3], "Sparse list must not have odd length: 1 2 3 "),
        ([5, 6, -1, 2], "Sparse list must not have additional -1s: 5 6 -1 2 "),
        ([5, 6, 3, -1], "Sparse list must not have out-of-bound offsets: 5 6 3 -1 "),
        ([5, 6, 2, 2], "Sparse list must not have non-increasing offsets: 5 6 2 2 "),
        ([5, 6, 7, 2, 1, -1], "Sparse list must not have non-increasing offsets: 5 6 7 2 1 -1 "),
    ],
)
def test_offsets_that_make_no_sense_are_refused(flat: list[int], text: str) -> None:
    with pytest.raises(EnqueueError) as refused:
        decode_words(flat)
    assert str(refused.value) == text


@pytest.mark.parametrize(
    ("tokens", "ends"),
    [([1, 2, 3], True), ([2, 3], True), ([3], False), ([2, 3, 4], False), ([9], True), ([3, 2], False)],
)
def test_a_sequence_ends_with_a_word(tokens: list[int], ends: bool) -> None:
    assert ends_with_word(tokens, ((2, 3), (9,))) is ends


@pytest.mark.parametrize(
    ("tokens", "banned"),
    [([1], [9]), ([2], [3, 9]), ([1, 2], [3, 9]), ([2, 1], [9]), ([4, 5], [6, 9]), ([5], [9])],
)
def test_the_last_id_of_a_begun_word_is_banned(tokens: list[int], banned: list[int]) -> None:
    assert sorted(banned_next(tokens, ((2, 3), (9,), (4, 5, 6)))) == banned
