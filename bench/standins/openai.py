"""
A stand-in for an OpenAI-compatible server: it repeats what the gateway has said once, byte for byte, at a pace.

Decides when each part leaves: the first at once, then one per step, all streams together. Does not read prompts; the
number of tokens and `stream` pick the recording.

    python -m bench.standins.openai SETTINGS.json
"""

import asyncio
import sys
from pathlib import Path
from typing import cast

import msgspec
import uvloop

from bench import control
from bench.standins.pace import Pace
from bench.standins.triton import Health


class Recording(msgspec.Struct, frozen=True):
    """
    One response of the gateway. `head`: status line and headers with the empty line; `parts`: what followed, token by
    token, each as it goes onto the wire.
    """

    stream: bool
    tokens: int
    head: str
    parts: tuple[str, ...]


class Settings(msgspec.Struct, frozen=True):
    port: int
    control: str
    interval_s: float
    recordings: tuple[Recording, ...]


class _Asked(msgspec.Struct):
    max_tokens: int
    stream: bool = False


class _Caller(asyncio.Protocol):
    """One connection; a request at a time."""

    def __init__(self, recordings: dict[tuple[bool, int], tuple[bytes, ...]], pace: Pace) -> None:
        self._recordings = recordings
        self._pace = pace
        self._in = b""
        self._parts: tuple[bytes, ...] = ()
        self._sent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def connection_lost(self, error: Exception | None) -> None:
        self._pace.leave(self)

    def data_received(self, data: bytes) -> None:
        self._in += data
        head, end, body = self._in.partition(b"\r\n\r\n")
        if not end or len(body) < _content_length(head):
            return
        self._in = b""
        asked = msgspec.json.decode(body, type=_Asked)
        self._parts, self._sent = self._recordings[asked.stream, asked.max_tokens], 0
        self.advance(1)
        if self._sent < len(self._parts):
            self._pace.join(self)

    def advance(self, steps: int) -> None:
        self._transport.write(b"".join(self._parts[self._sent : self._sent + steps]))
        self._sent += steps
        if self._sent >= len(self._parts):
            self._pace.leave(self)


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def _run(settings: Settings) -> None:
    pace = Pace(settings.interval_s)
    recordings = {}
    for recording in settings.recordings:
        first, *rest = (part.encode() for part in recording.parts)
        recordings[recording.stream, recording.tokens] = (recording.head.encode() + first, *rest)
    await asyncio.get_running_loop().create_server(lambda: _Caller(recordings, pace), "127.0.0.1", settings.port)

    async def health(_: object) -> Health:
        return Health(pace.steps, pace.late_steps)

    await asyncio.gather(pace.run(), control.serve(Path(settings.control), object, health))


if __name__ == "__main__":
    uvloop.run(_run(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Settings)))
