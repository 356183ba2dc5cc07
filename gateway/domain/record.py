"""
What is remembered of one request when it has ended: the one record that metrics and logs are made from.

Holds no content of prompts or answers, and no key.
"""

from dataclasses import dataclass
from typing import Literal

from gateway.domain.event import NO_USAGE, Usage

Outcome = Literal["finished", "disconnected", "failed", "refused"]


@dataclass(slots=True, kw_only=True)
class RequestRecord:
    """
    One request, however it ended. Filled as it goes along by the use case alone, then handed to the observers.

    Instants are seconds on the monotonic clock; 0 where the request never came so far. `error`: the failure's name.
    """

    request_id: str
    tenant: str
    operation: str
    stream: bool
    model: str = ""
    profile_version: int = 0
    endpoint: str = ""
    rung: str = ""
    outcome: Outcome = "refused"
    error: str = ""
    usage: Usage = NO_USAGE
    started_s: float = 0.0
    sent_s: float = 0.0
    first_content_s: float = 0.0
    ended_s: float = 0.0
