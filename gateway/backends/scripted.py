"""
A backend that answers from a script: for tests, examples and demonstrations, with no engine and no tokenizer.

Decides what is said, when, and how it fails. Its answers end as an engine's do: stop strings cut them, `max_tokens`
limits them, closing ends them. Keeps the promises of gateway.ports.Backend and passes the same contract tests as the
real ones. A piece of text in a script stands for one token.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from gateway.backends.residency import Residency
from gateway.domain.adapter import LoraAdapter
from gateway.domain.answer import Answer
from gateway.domain.errors import AnswerIncomplete, BackendFailed
from gateway.domain.event import Event
from gateway.domain.job import Endpoint, Job, Target
from gateway.domain.request import Chat, Text


@dataclass(frozen=True, slots=True)
class Say:
    """Tokens that arrive together. `answer`: which of several says them; None means each does."""

    pieces: tuple[str, ...]
    answer: int | None = None
    logprob: float = -0.5


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing happens for a while."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Until:
    """Nothing happens until somebody sets the event."""

    event: asyncio.Event


@dataclass(frozen=True, slots=True)
class Fail:
    """The target fails: as one that did not answer where nothing was said before, else in the middle of its answer."""

    failure: BackendFailed


class BreakOff:
    """The stream ends without an end of the answer."""


Step = str | Say | Pause | Until | Fail | BreakOff
"""A text alone is one token. After the last step every answer ends."""

Script = Sequence[Step]
Play = Callable[[Job, Target], Script]


def last_words(job: Job) -> str:
    """What the caller said last: the newest message, or the whole text."""
    match job.request.prompt:
        case Chat(messages):
            return messages[-1].content
        case Text(text):
            return text
    return ""


def by_profile(scripts: Mapping[str, Script], otherwise: Script = ("Hello", ".")) -> Play:
    """A script for each profile's name."""
    return lambda job, _: scripts.get(job.profile.name, otherwise)


def by_prompt(scripts: Mapping[str, Script], otherwise: Script = ("Hello", ".")) -> Play:
    """A script for what the caller said last."""
    return lambda job, _: scripts.get(last_words(job), otherwise)


class ScriptedBackend:
    """A Backend. `away`: endpoints that say they are not ready; it may be changed at any time."""

    def __init__(self, play: Play, away: set[str] | None = None) -> None:
        self.away: set[str] = set() if away is None else away
        self._play = play
        self._in_flight: dict[str, int] = {}
        self._residency = Residency(most_claims=1024)

    def in_flight(self, endpoint: Endpoint) -> int:
        return self._in_flight.get(endpoint.name, 0)

    def ready(self, endpoint: Endpoint) -> bool:
        return endpoint.name not in self.away

    def resident(self, endpoint: Endpoint, adapter: LoraAdapter) -> bool:
        return self._residency.claim(endpoint, adapter) > 0

    async def generate(self, job: Job, target: Target) -> AsyncGenerator[list[Event], None]:
        with self._counted(target.endpoint):
            answers = [_Spoken(job, index) for index in range(job.request.n)]
            for step in self._play(job, target):
                events = await self._perform(step, answers)
                if events:
                    if job.profile.lora is not None:
                        self._residency.learned(target.endpoint, job.profile.lora, 1)
                    yield events
                if all(answer.finished for answer in answers):
                    return
            yield [event for answer in answers for event in answer.end()]

    async def _perform(self, step: Step, answers: Sequence["_Spoken"]) -> list[Event]:
        match step:
            case str(piece):
                return [event for answer in answers for event in answer.say((piece,), -0.5)]
            case Say(pieces, which, logprob):
                told = answers if which is None else answers[which : which + 1]
                return [event for answer in told for event in answer.say(pieces, logprob)]
            case Pause(seconds):
                await asyncio.sleep(seconds)
            case Until(event):
                await event.wait()
            case Fail(failure):
                raise failure
            case BreakOff():
                raise AnswerIncomplete("the script breaks off here")
        return []

    @contextmanager
    def _counted(self, endpoint: Endpoint) -> Iterator[None]:
        self._in_flight[endpoint.name] = self.in_flight(endpoint) + 1
        try:
            yield
        finally:
            self._in_flight[endpoint.name] -= 1


class _Spoken:
    """One answer: its pieces are its tokens, and their places in the script their ids."""

    def __init__(self, job: Job, index: int) -> None:
        self._pieces = _Pieces()
        self._answer = Answer(index, self._pieces, job.request.stop, frozenset(), job.max_tokens)
        self._left = job.max_tokens
        self._logprobs = job.request.logprobs

    @property
    def finished(self) -> bool:
        return self._answer.finished

    def say(self, pieces: Sequence[str], logprob: float) -> list[Event]:
        pieces = pieces[: self._left]
        self._left -= len(pieces)
        ids = self._pieces.add(pieces)
        logprobs = [logprob] * len(ids) if self._logprobs else ()
        return self._answer.feed(ids, logprobs, final=not self._left)

    def end(self) -> list[Event]:
        return self._answer.feed((), final=True)


class _Pieces:
    """A Detokenizer whose tokens are the texts it was given."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def add(self, pieces: Sequence[str]) -> range:
        self._texts += pieces
        return range(len(self._texts) - len(pieces), len(self._texts))

    def feed(self, ids: Sequence[int]) -> str:
        return "".join([self._texts[number] for number in ids])

    def flush(self) -> str:
        return ""

    def token_bytes(self, token_id: int) -> bytes:
        return self._texts[token_id].encode()
