"""
From token ids to the events of one answer: text, stop strings, the finish reason.

Decides where text is cut and why an answer ended. Does not know how ids become text (a Detokenizer does) nor where they
came from. Its output does not depend on how the ids were split over calls.
"""

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from gateway.domain.event import Delta, Event, Finished, FinishReason, TokenLogprob


class Detokenizer(Protocol):
    """Turns the ids of one answer into text, never giving half a character."""

    def feed(self, ids: Sequence[int]) -> str:
        """The text that these ids complete."""
        ...

    def flush(self) -> str:
        """What is left when no more ids come; bytes that make no character become U+FFFD."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """One token's own bytes; empty for a special token."""
        ...


class StopStrings:
    """
    Finds the stop string that is complete first, and holds back text that may become one.

    The earliest *end* decides, not the earliest start: only then is the cut the same however the text is split.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """The text that is safe to show now, and whether a stop string was met right after it."""
        if not self._stops:
            return text, False
        text = self._held + text
        ends = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        if ends:
            self._held = ""
            return text[: min(ends)[1]], True
        hold = self._ambiguous(text)
        self._held = text[len(text) - hold :]
        return text[: len(text) - hold], False

    def flush(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held

    def _ambiguous(self, text: str) -> int:
        longest = max(map(len, self._stops)) - 1
        for length in range(min(longest, len(text)), 0, -1):
            tail = text[-length:]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0


class Answer:
    """
    One answer as it grows.

    `max_tokens` is what the engine was told; `eos_ids` end an answer wherever they appear and are never shown. The
    engine gives no reason for an end, so the count of tokens decides: all used up is `length`, anything less is `stop`.
    """

    def __init__(
        self, index: int, detokenizer: Detokenizer, stops: Sequence[str], eos_ids: frozenset[int], max_tokens: int
    ) -> None:
        self._index = index
        self._detokenizer = detokenizer
        self._stops = StopStrings(stops)
        self._eos_ids = eos_ids
        self._max_tokens = max_tokens
        self._tokens = 0
        self._told_tokens = 0
        self._text_end = 0
        self._shown = 0
        self._logprobs: deque[tuple[int, TokenLogprob]] = deque()
        self.finished = False

    @property
    def tokens(self) -> int:
        """Tokens the engine has generated for this answer so far."""
        return self._tokens

    def feed(self, ids: Sequence[int], logprobs: Sequence[float] = (), *, final: bool = False) -> list[Event]:
        """
        The events that newly arrived ids cause; `final` when the engine said that no more will come.

        `logprobs` is empty or has one entry for each id.
        """
        if self.finished:
            return []
        self._tokens += len(ids)
        ended = False
        if self._eos_ids and not self._eos_ids.isdisjoint(ids):
            cut = next(i for i, token in enumerate(ids) if token in self._eos_ids)
            ids, logprobs, ended = ids[:cut], logprobs[:cut], True
        text = self._read(ids, logprobs)
        if ended or final:
            text += self._detokenizer.flush()
        shown, stopped = self._stops.feed(text)
        if stopped or ended or final:
            if not stopped:
                shown += self._stops.flush()
            by_limit = not stopped and not ended and self._tokens >= self._max_tokens
            return self._end(shown, FinishReason.LENGTH if by_limit else FinishReason.STOP)
        return self._show(shown)

    def _read(self, ids: Sequence[int], logprobs: Sequence[float]) -> str:
        if not logprobs:
            return self._detokenizer.feed(ids)
        parts = []
        for token, logprob in zip(ids, logprobs, strict=True):
            data = self._detokenizer.token_bytes(token)
            entry = TokenLogprob(data.decode("utf-8", "replace"), data, logprob)
            self._logprobs.append((self._text_end, entry))
            part = self._detokenizer.feed((token,))
            self._text_end += len(part)
            parts.append(part)
        return "".join(parts)

    def _show(self, text: str, *, last: bool = False) -> list[Event]:
        self._shown += len(text)
        entries = []
        # A token is reported with the text it begins in; one that a stop string cut off entirely is not reported.
        while self._logprobs and (self._logprobs[0][0] < self._shown or (last and not self._logprobs[0][1].bytes)):
            entries.append(self._logprobs.popleft()[1])
        if not text and not entries:
            return []
        tokens, self._told_tokens = self._tokens - self._told_tokens, self._tokens
        return [Delta(self._index, text, tuple(entries), tokens)]

    def _end(self, text: str, reason: FinishReason) -> list[Event]:
        self.finished = True
        return [*self._show(text, last=True), Finished(self._index, reason, self._tokens)]
