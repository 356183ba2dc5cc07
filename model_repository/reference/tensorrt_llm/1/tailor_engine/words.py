"""
Stop and bad words: their encoding on the wire, and matching them against a sequence.

Decides what counts as a match. Does not know text: words are token ids here. Encoding: contract, section 2.3.
"""

from collections.abc import Sequence

from .errors import EnqueueError

Word = tuple[int, ...]


def decode_words(flat: Sequence[int]) -> tuple[Word, ...]:
    """
    Words out of a flattened [2, n] list: n ids, then n cumulative end offsets padded with -1.

    Raises:
        EnqueueError: the offsets make no sense; the text is TensorRT-LLM's.
    """
    shown = "".join(f"{value} " for value in flat)
    if len(flat) % 2:
        raise EnqueueError(f"Sparse list must not have odd length: {shown}")
    size = len(flat) // 2
    ids, offsets = flat[:size], flat[size:]
    words: list[Word] = []
    start = 0
    for place, end in enumerate(offsets):
        if end == -1:
            if any(later != -1 for later in offsets[place + 1 :]):
                raise EnqueueError(f"Sparse list must not have additional -1s: {shown}")
            break
        if end > size:
            raise EnqueueError(f"Sparse list must not have out-of-bound offsets: {shown}")
        if place and end <= offsets[place - 1]:
            raise EnqueueError(f"Sparse list must not have non-increasing offsets: {shown}")
        word = tuple(ids[start:end])
        start = max(start, end)
        if word:
            words.append(word)
    return tuple(words)


def ends_with_word(tokens: Sequence[int], words: Sequence[Word]) -> bool:
    """Whether the sequence, prompt included, now ends with one of the words."""
    last = tokens[-1]
    return any(word[-1] == last and len(word) <= len(tokens) and tuple(tokens[-len(word) :]) == word for word in words)


def banned_next(tokens: Sequence[int], words: Sequence[Word]) -> list[int]:
    """Ids that may not come next: the last id of every word whose earlier ids the sequence ends with."""
    return [
        word[-1]
        for word in words
        if len(word) == 1 or (len(word) - 1 <= len(tokens) and tuple(tokens[1 - len(word) :]) == word[:-1])
    ]
