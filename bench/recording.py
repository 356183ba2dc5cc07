"""
What the stand-ins say: seeded tokens for the one, and for the other what the gateway made of them, written down.

Decides the tokens of every answer and how a recorded response is cut into steps. So nginx passes on the very bytes that
the gateway sends.
"""

import http.client
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.callers.http import request
from bench.callers.order import Order
from bench.plan import Cell
from bench.prompts import chats
from bench.standins.openai import Recording
from gateway.local.errors import LocalRunError
from gateway.local.ports import HOST
from gateway.tokens.tokenizer import BaseTokenizer

_PATIENCE_S = 30.0
_CONTENT = b'"delta":{"content":'
_HOP_BY_HOP = ("connection", "keep-alive")


@dataclass(frozen=True, slots=True)
class Speech:
    """The tokens of every paced answer: `ids` from the first on, and what each says."""

    ids: tuple[int, ...]
    texts: tuple[str, ...]

    @classmethod
    def seeded(cls, seed: int, checkpoint: Path, vocab_size: int, tokens: int) -> "Speech":
        """Tokens that each make whole characters, so that each is a chunk of a stream."""
        codec = BaseTokenizer.load(checkpoint)
        detokenizer = codec.detokenizer()
        ids = [number for number in range(vocab_size) if _is_whole(detokenizer.token_bytes(number))]
        chosen = random.Random(seed).choices([number for number in ids if number not in codec.eos_ids], k=tokens)
        return cls(tuple(chosen), tuple(detokenizer.token_bytes(number).decode() for number in chosen))

    def text(self, tokens: int) -> str:
        """What an answer of that many tokens says."""
        return "".join(self.texts[:tokens])


def _is_whole(data: bytes) -> bool:
    try:
        return bool(data.decode())
    except UnicodeDecodeError:
        return False


def record(port: int, key: str, cells: Sequence[Cell]) -> tuple[Recording, ...]:
    """
    Ask the gateway once for each kind of paced answer.

    Raises:
        LocalRunError: it did not answer as it should.
    """
    kinds = {(cell.stream, cell.tokens): cell for cell in cells}
    return tuple(_recorded(port, key, cell) for cell in kinds.values())


def _recorded(port: int, key: str, cell: Cell) -> Recording:
    order = Order(
        port=port,
        model=cell.model,
        key=key,
        stream=cell.stream,
        tokens=cell.tokens,
        callers=1,
        requests=1,
        spread_s=0,
        chats=tuple(chats(0, cell.task, 0, 1)),
    )
    connection = http.client.HTTPConnection(HOST, port, timeout=_PATIENCE_S)
    try:
        head, _, body = request(order, 0).partition(b"\r\n\r\n")
        headers = dict(line.decode().split(": ", 1) for line in head.split(b"\r\n")[1:])
        connection.request("POST", "/v1/chat/completions", body, headers)
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise LocalRunError(f"the gateway did not answer the first request: {error}") from error
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK:
        raise LocalRunError(f"the gateway answered the first request with {response.status}: {answer[:500]!r}")
    kept = [f"{name}: {value}" for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP]
    parts = _steps(answer, cell.tokens) if cell.stream else [answer]
    return Recording(
        stream=cell.stream,
        tokens=cell.tokens,
        head="\r\n".join(["HTTP/1.1 200 OK", *kept, "", ""]),
        parts=tuple(part.decode() for part in parts),
    )


def _steps(body: bytes, tokens: int) -> list[bytes]:
    """A recorded stream cut anew: one HTTP chunk for each token, what opens and ends it with the first and the last."""
    events = [event + b"\n\n" for event in body.split(b"\n\n") if event]
    contents = [index for index, event in enumerate(events) if _CONTENT in event]
    if len(contents) != tokens:
        raise LocalRunError(f"the gateway's first stream has {len(contents)} chunks of content instead of {tokens}")
    bounds = [0, *contents[1:], len(events)]
    parts = [b"".join(events[start:end]) for start, end in itertools.pairwise(bounds)]
    chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in parts]
    return [*chunks[:-1], chunks[-1] + b"0\r\n\r\n"]
