"""
One admitted request on its way to an engine, and where it may go.

Decides what a backend is given. Does not know how targets are ordered (routing.py) nor what a backend does with them.
"""

from dataclasses import dataclass

from gateway.domain.manifest import EngineManifest
from gateway.domain.profile import Profile
from gateway.domain.request import GenerationRequest


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One Triton we can ask, with what its engine can take. `address` is host:port of its gRPC service."""

    name: str
    address: str
    manifest: EngineManifest


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint, and the rung of the fallback ladder that asking it stands on."""

    endpoint: Endpoint
    rung: str = "adapter"


@dataclass(frozen=True, slots=True)
class Job:
    """
    A request with everything decided but the target.

    `prompt_ids`: the caller's tokens, without the profile's virtual ones. `max_tokens`: for each of the `n` answers,
    and it fits. `request_id`: what the caller sees as `x-request-id`.
    """

    request_id: str
    request: GenerationRequest
    profile: Profile
    prompt_ids: list[int]
    max_tokens: int

    @property
    def virtual_tokens(self) -> int:
        return 0 if self.profile.prompt is None else self.profile.prompt.rows

    @property
    def prompt_tokens(self) -> int:
        """All tokens the engine reads before it answers."""
        return len(self.prompt_ids) + self.virtual_tokens
