"""
What each operation does to a profile's state. Pure: state in, state out, or a refusal that says what to do.
"""

from collections.abc import Sequence

import msgspec

from gateway.domain.registry_errors import NotRegistered, RegistryConflict
from gateway.domain.version import ProfileState, VersionRecord


def select(state: ProfileState, versions: Sequence[VersionRecord], selector: int | str) -> VersionRecord:
    """
    The version that a number, a label or a digest names, retired ones too.

    Raises:
        NotRegistered: none does.
    """
    number = state.labels.get(selector) if isinstance(selector, str) else selector
    for record in versions:
        if record.number == number or record.digest == selector:
            return record
    raise NotRegistered(
        f"{state.tenant}/{state.name} has no version {selector}; `tailor adapters show {state.name} --tenant "
        f"{state.tenant}` lists them.",
        "version",
    )


def with_version(state: ProfileState, number: int, *, promote: bool) -> ProfileState:
    """A version is there, again or for the first time. It goes live where asked, or where nothing is."""
    state = msgspec.structs.replace(
        state,
        versions=state.versions if number in state.versions else (*state.versions, number),
        retired=tuple(other for other in state.retired if other != number),
    )
    return with_live(state, number) if promote or state.live is None else state


def with_live(state: ProfileState, number: int) -> ProfileState:
    """
    `live` points at a version.

    Raises:
        RegistryConflict: the version is retired.
    """
    if number in state.retired:
        raise RegistryConflict(
            f"Version {number} of {state.tenant}/{state.name} is retired; add the same directory again to restore it.",
            "version",
        )
    if state.live == number:
        return state
    previous = state.previous_live if state.live is None else (*state.previous_live, state.live)
    return msgspec.structs.replace(state, labels={**state.labels, "live": number}, previous_live=previous[-100:])


def rolled_back(state: ProfileState) -> ProfileState:
    """
    `live` points at what it pointed at before; a second time, at what it pointed at before that.

    Raises:
        RegistryConflict: there is nothing to go back to.
    """
    previous = list(state.previous_live)
    while previous:
        number = previous.pop()
        if number in state.present and number != state.live:
            return msgspec.structs.replace(
                state, labels={**state.labels, "live": number}, previous_live=tuple(previous)
            )
    raise RegistryConflict(
        f"{state.tenant}/{state.name} has no earlier live version to go back to; promote one by its number instead."
    )


def without_version(state: ProfileState, number: int) -> ProfileState:
    """
    A version is retired. Its number is never used again.

    Raises:
        RegistryConflict: a label points at it.
    """
    labels = sorted(label for label, target in state.labels.items() if target == number)
    if labels:
        raise RegistryConflict(
            f"Version {number} of {state.tenant}/{state.name} is {', '.join(labels)}; promote another version first, "
            "or remove the whole profile.",
            "version",
        )
    if number in state.retired:
        return state
    return msgspec.structs.replace(state, retired=(*state.retired, number))


def without_any(state: ProfileState) -> ProfileState:
    """Every version is retired and nothing is live."""
    return msgspec.structs.replace(state, retired=state.versions, labels={}, previous_live=())
