"""
Which endpoints may answer, and in which order to try them: filter, score, pick.

Pure: the same snapshots give the same route. Does not measure load or residency itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.domain.job import Endpoint, Target
from gateway.domain.profile import Profile


@dataclass(frozen=True, slots=True)
class EndpointSnapshot:
    """What this gateway knows of an endpoint now. `resident`: it is believed to hold the adapter asked for."""

    endpoint: Endpoint
    ready: bool
    in_flight: int
    resident: bool


def route(profile: Profile, snapshots: Sequence[EndpointSnapshot]) -> list[Target]:
    """
    Targets in the order to try them: ready ones first, then those that hold the adapter, then the least busy.

    An endpoint that is not ready stays at the end of the list: its state is a claim, and the last one left is still
    better than a refusal. Empty where no endpoint serves the profile's base.
    """
    fitting = [snapshot for snapshot in snapshots if snapshot.endpoint.manifest.base.name == profile.base]
    fitting.sort(key=lambda snapshot: (not snapshot.ready, not snapshot.resident, snapshot.in_flight))
    rung = "base" if profile.tenant is None else "adapter"
    return [Target(snapshot.endpoint, rung) for snapshot in fitting]
