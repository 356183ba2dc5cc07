"""
A stand-in for Triton's gRPC port that keeps a pace: every stream one token per step, all streams together.

Decides when tokens leave. The first token leaves at once, an answer of at most `WHOLE_TOKENS` leaves whole in one
message, and a step that came late is made up for in the next write, a message for each token. Does not read prompts.

    python -m bench.standins.triton SETTINGS.json
"""

import asyncio
import sys
from pathlib import Path

import msgspec
import uvloop

from bench import control
from bench.standins.http2 import Connection, frame
from bench.standins.messages import asked, response_frame
from bench.standins.pace import Pace

WHOLE_TOKENS = 16
_READY = frame(0, 0, 0, b"\x00\x00\x00\x00\x02\x08\x01")[9:]  # a gRPC message: field 1, true


class Settings(msgspec.Struct, frozen=True):
    """`ids`: the tokens of every answer, from its first on."""

    port: int
    control: str
    interval_s: float
    ids: tuple[int, ...]


class Health(msgspec.Struct, frozen=True):
    """What a stand-in says of itself since its start."""

    steps: int
    late_steps: int


class _Answer:
    """One stream under way."""

    def __init__(self, engine: "Engine", connection: Connection, stream: int, identifier: bytes, wanted: int) -> None:
        self._engine = engine
        self._connection = connection
        self._stream = stream
        self._id = identifier
        self._wanted = wanted
        self._sent = 0

    def advance(self, steps: int) -> None:
        ids = self._engine.ids
        for number in range(self._sent, min(self._sent + steps, self._wanted)):
            final = number == self._wanted - 1
            data = response_frame(self._stream, self._id, (ids[number % len(ids)],), final=final)
            self._connection.message(self._stream, data)
        self._sent += steps
        if self._sent >= self._wanted:
            self._engine.over(self._connection, self._stream)
            self._connection.end(self._stream)


class Engine:
    """All answers under way; `take` and `over` are what a Connection calls."""

    def __init__(self, ids: tuple[int, ...], pace: Pace) -> None:
        self.ids = ids
        self._pace = pace
        self._answers: dict[tuple[Connection, int], _Answer] = {}

    def take(self, connection: Connection, stream: int, message: bytes) -> None:
        """Begin to answer a call."""
        connection.begin(stream)
        question = asked(message)
        if question is None:
            connection.message(stream, frame(0, 0, stream, _READY))
            connection.end(stream)
            return
        identifier, wanted = question[0].encode(), question[1]
        if wanted <= WHOLE_TOKENS:
            ids = tuple(self.ids[number % len(self.ids)] for number in range(wanted))
            connection.message(stream, response_frame(stream, identifier, ids, final=True))
            connection.end(stream)
            return
        answer = _Answer(self, connection, stream, identifier, wanted)
        self._answers[connection, stream] = answer
        answer.advance(1)
        self._pace.join(answer)

    def over(self, connection: Connection, stream: int) -> None:
        """The answer is complete, or nobody waits for it any more."""
        answer = self._answers.pop((connection, stream), None)
        if answer is not None:
            self._pace.leave(answer)


async def _run(settings: Settings) -> None:
    pace = Pace(settings.interval_s)
    engine = Engine(settings.ids, pace)
    await asyncio.get_running_loop().create_server(
        lambda: Connection(engine.take, engine.over), "127.0.0.1", settings.port
    )

    async def health(_: object) -> Health:
        return Health(pace.steps, pace.late_steps)

    await asyncio.gather(pace.run(), control.serve(Path(settings.control), object, health))


if __name__ == "__main__":
    uvloop.run(_run(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Settings)))
