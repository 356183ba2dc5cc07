"""
One answer as it grows: where text is cut, why it ends, and that neither depends on how its ids arrive.
"""

import random
from collections.abc import Sequence

import pytest

from gateway.domain.answer import Answer, StopStrings
from gateway.domain.event import Delta, Event, Finished, FinishReason, TokenLogprob

END, OTHER_END = 1000, 1001


class Letters:
    """Every id is one byte; ids over 255 have none. Bytes become text as soon as they make a character."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, ids: Sequence[int]) -> str:
        text = ""
        for number in ids:
            self._held += self.token_bytes(number)
            try:
                text, self._held = text + self._held.decode(), b""
            except UnicodeDecodeError:
                continue
        return text

    def flush(self) -> str:
        held, self._held = self._held, b""
        return held.decode(errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id]) if token_id < 256 else b""


def answer(stops: Sequence[str] = (), *, eos: Sequence[int] = (END,), max_tokens: int = 10_000) -> Answer:
    return Answer(0, Letters(), stops, frozenset(eos), max_tokens)


def said(text: str) -> list[int]:
    return list(text.encode())


def play(growing: Answer, *batches: Sequence[int], final: bool = True) -> list[Event]:
    events = [event for batch in batches for event in growing.feed(batch)]
    return events + (growing.feed((), final=True) if final else [])


def text_of(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


def end_of(events: Sequence[Event]) -> Finished:
    (end,) = [event for event in events if isinstance(event, Finished)]
    assert events[-1] is end
    return end


def splits(draw: random.Random, items: Sequence[int]) -> list[Sequence[int]]:
    out, rest = [], items
    while rest:
        size = draw.randint(1, max(1, len(rest)))
        out.append(rest[:size])
        rest = rest[size:]
    return out


@pytest.mark.parametrize(
    ("text", "stops", "shown"),
    [
        pytest.param("one two", ["two"], "one ", id="a stop string is cut off"),
        pytest.param("one two three", ["two"], "one ", id="and everything after it"),
        pytest.param("two", ["two"], "", id="nothing is left where it comes first"),
        pytest.param("one tw", ["two"], "one tw", id="what only begins like one is shown in the end"),
        pytest.param("aab", ["ab"], "a", id="a false start does not hide a true one"),
        pytest.param("abab abc", ["abc"], "abab ", id="nor do several"),
        pytest.param("x\n\ny", ["\n\n", "\n"], "x", id="the one that ends first counts"),
        pytest.param("abcd", ["abcd", "bc"], "a", id="even where another began earlier"),
        pytest.param("xab", ["b", "ab"], "x", id="of two that end together the longer is cut off whole"),
        pytest.param("a😀b", ["😀"], "a", id="a stop string may be of more bytes than one"),
        pytest.param("é", ["e"], "é", id="bytes of a character are not looked into"),
        pytest.param("anything", [], "anything", id="without stop strings nothing is cut"),
    ],
)
def test_what_stop_strings_leave(text, stops, shown):
    for batches in ([said(text)], [[number] for number in said(text)]):
        events = play(answer(stops), *batches)
        assert text_of(events) == shown
        assert end_of(events).reason is FinishReason.STOP


def test_text_and_reason_do_not_depend_on_how_ids_arrive():
    draw = random.Random(1)
    for _ in range(3000):
        ids = [*said("".join(draw.choices("abé", k=draw.randint(0, 12)))), *draw.choices([END, 200], k=1)]
        ids = ids[: draw.randint(0, len(ids))]
        stops = ["".join(draw.choices("abé", k=draw.randint(1, 4))) for _ in range(draw.randint(0, 4))]
        max_tokens = draw.choice([len(ids), 10_000]) or 1
        whole = play(answer(stops, max_tokens=max_tokens), ids)
        parts = play(answer(stops, max_tokens=max_tokens), *splits(draw, ids))
        assert text_of(parts) == text_of(whole), (ids, stops)
        assert end_of(parts).reason is end_of(whole).reason, (ids, stops)


def test_no_part_of_a_stop_string_is_ever_shown():
    draw = random.Random(2)
    for _ in range(2000):
        text = "".join(draw.choices("ab", k=draw.randint(0, 15)))
        stops = ["".join(draw.choices("ab", k=draw.randint(1, 5))) for _ in range(draw.randint(1, 4))]
        growing, shown = answer(stops), ""
        for number in said(text):
            shown += text_of(growing.feed([number]))
            # Whatever is shown must still be right if the answer goes on in any way.
            assert not any(stop in shown for stop in stops)
        ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
        first = min(ends, default=None)
        cut = None if first is None else min(first - len(stop) for stop in stops if text[:first].endswith(stop))
        assert shown + text_of(growing.feed((), final=True)) == text[:cut]


def test_text_that_may_become_a_stop_string_waits_and_no_longer():
    stops = StopStrings(["stop"])
    assert stops.feed("so st") == ("so ", False)
    assert stops.feed("ar") == ("star", False)
    assert stops.feed("s") == ("", False)
    assert stops.flush() == "s"
    assert stops.flush() == ""


@pytest.mark.parametrize(
    ("batches", "max_tokens", "final", "text", "reason"),
    [
        pytest.param([said("abc")], 4, True, "abc", FinishReason.STOP, id="fewer tokens than asked for is a stop"),
        pytest.param([said("abc")], 3, True, "abc", FinishReason.LENGTH, id="all that were asked for is the length"),
        pytest.param([said("ab"), said("c")], 3, True, "abc", FinishReason.LENGTH, id="also over several batches"),
        pytest.param(
            [[*said("ab"), END]], 3, True, "ab", FinishReason.STOP, id="an end id is a stop, at the limit too"
        ),
        pytest.param(
            [[*said("a"), OTHER_END, *said("b")]], 9, False, "a", FinishReason.STOP, id="the other end id too"
        ),
        pytest.param([said("abX")], 3, True, "ab", FinishReason.STOP, id="a stop string is a stop, at the limit too"),
        pytest.param([[END]], 9, False, "", FinishReason.STOP, id="an answer may be empty"),
        pytest.param([], 9, True, "", FinishReason.STOP, id="the engine may end it before any token"),
        pytest.param(
            ["é".encode()[:1]], 9, True, "\ufffd", FinishReason.STOP, id="half a character is told at the end"
        ),
        pytest.param([[0xC3, END]], 9, False, "\ufffd", FinishReason.STOP, id="also before an end id"),
        pytest.param([[*said("a"), 0xC3]], 2, True, "a\ufffd", FinishReason.LENGTH, id="also at the limit"),
    ],
)
def test_why_an_answer_ends(batches, max_tokens, final, text, reason):
    events = play(answer(["X"], eos=(END, OTHER_END), max_tokens=max_tokens), *batches, final=final)
    assert text_of(events) == text
    assert end_of(events).reason is reason


def test_tokens_are_counted_with_what_was_cut_off():
    assert end_of(play(answer(["b"]), said("abc"))).completion_tokens == 3
    assert end_of(play(answer(), [*said("ab"), END])).completion_tokens == 3


def test_nothing_comes_after_the_end():
    growing = answer()
    growing.feed([*said("a"), END])
    assert growing.finished
    assert growing.feed(said("more"), final=True) == []


def test_an_answer_knows_which_of_several_it_is():
    growing = Answer(3, Letters(), (), frozenset(), 2)
    assert {event.index for event in play(growing, said("ab"))} == {3}


def logprobs_of(events: Sequence[Event]) -> list[TokenLogprob]:
    return [entry for event in events if isinstance(event, Delta) for entry in event.logprobs]


def feed_logprobs(growing: Answer, batches: Sequence[Sequence[int]], *, final: bool = True) -> list[Event]:
    events: list[Event] = []
    for batch in batches:
        events += growing.feed(batch, [-number / 256 for number in batch])
    return events + (growing.feed((), final=True) if final else [])


def test_each_token_that_is_shown_has_its_logprob_and_no_other():
    draw = random.Random(3)
    for _ in range(2000):
        ids = [*said("".join(draw.choices("abé", k=draw.randint(0, 10)))), *draw.choices([END, 0x80], k=1)]
        stops = ["".join(draw.choices("abé", k=draw.randint(1, 3))) for _ in range(draw.randint(0, 2))]
        events = feed_logprobs(answer(stops), splits(draw, ids))
        data = b"".join(entry.bytes for entry in logprobs_of(events))
        assert data.decode(errors="replace") == text_of(events), (ids, stops)
        assert [entry.logprob for entry in logprobs_of(events)] == [-byte / 256 for byte in data]


def test_logprobs_never_run_ahead_of_the_text():
    growing = answer(["bcd"])
    shown = [growing.feed([number], [-1.0]) for number in said("abcx")]
    assert [(text_of(events), len(logprobs_of(events))) for events in shown] == [("a", 1), ("", 0), ("", 0), ("bcx", 3)]


def test_a_character_of_several_tokens_comes_with_all_of_their_logprobs():
    growing = answer()
    assert growing.feed([0xC3], [-1.0]) == []
    (delta,) = growing.feed([0xA9], [-2.0])
    assert text_of([delta]) == "é"
    assert [(entry.text, entry.bytes, entry.logprob) for entry in logprobs_of([delta])] == [
        ("\ufffd", b"\xc3", -1.0),
        ("\ufffd", b"\xa9", -2.0),
    ]


def test_a_special_token_within_an_answer_has_a_logprob_and_no_text():
    events = feed_logprobs(answer(), [[*said("a"), 500, *said("b")]])
    assert text_of(events) == "ab"
    assert [entry.bytes for entry in logprobs_of(events)] == [b"a", b"", b"b"]
