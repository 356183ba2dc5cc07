"""
What comes back from anything that answers: any number of deltas, then one end for each answer.

Decides the events that cross the seam between backends and transport. Does not know SSE, tokens' ids or tensors.
"""

from dataclasses import dataclass
from enum import StrEnum


class FinishReason(StrEnum):
    """Why an answer ended: the model or a stop string ended it, or a limit of tokens did."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One generated token: its text as shown, its bytes, and its natural log-probability."""

    text: str
    bytes: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class Delta:
    """
    More text of answer `index`. It never ends within a character.

    `tokens`: generated since the last delta, also those whose text is still held back.
    """

    index: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of answer `index`, with the tokens that were generated for it (what a stop string cut off included)."""

    index: int
    reason: FinishReason
    completion_tokens: int


Event = Delta | Finished


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request. `virtual_tokens` are the profile's, counted within `prompt_tokens`."""

    prompt_tokens: int
    virtual_tokens: int
    completion_tokens: int


NO_USAGE = Usage(0, 0, 0)
