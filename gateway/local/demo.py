"""
The demo profiles of a base: what `build/` trained, by tenant and name.

Decides how the list beside a base is read. Does not register anything (the caller hands in who does).
"""

from pathlib import Path

import msgspec

from gateway.local.errors import LocalRunError


class Example(msgspec.Struct, frozen=True):
    prompt: str
    answer: str


class Listed(msgspec.Struct, frozen=True):
    """One entry of profiles.json; adapters are PEFT directories relative to that file's folder."""

    tenant: str
    name: str
    adapters: tuple[str, ...]
    description: str
    instruction: str
    example: Example


class DemoProfile(msgspec.Struct, frozen=True):
    """`directories`: one or two PEFT directories, absolute. `instruction`: what the adapter spares the prompt."""

    tenant: str
    name: str
    directories: tuple[str, ...]
    description: str
    instruction: str
    example: Example


def demo_profiles(folder: Path) -> list[DemoProfile]:
    """
    The profiles listed in `folder`, in its order; none where there is no list.

    Raises:
        LocalRunError: the list cannot be read.
    """
    listing = folder / "profiles.json"
    if not listing.exists():
        return []
    try:
        listed = msgspec.json.decode(listing.read_bytes(), type=list[Listed])
    except (OSError, msgspec.MsgspecError) as error:
        raise LocalRunError(f"the demo profiles in {listing} cannot be read: {error}") from error
    return [
        DemoProfile(
            tenant=entry.tenant,
            name=entry.name,
            directories=tuple(str(folder / adapter) for adapter in entry.adapters),
            description=entry.description,
            instruction=entry.instruction,
            example=entry.example,
        )
        for entry in listed
    ]
