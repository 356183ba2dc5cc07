"""
The demo bases and their committed profiles, as they are read back.

Decides: where each base's checkpoint and artefacts lie, and the shape of profiles.json.
Does not know: how either was made.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from build.recipes import smollm2, tiny
from build.smollm2_base.prepare import DIRECTORY

_BUILD = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class DemoBase:
    """checkpoint: Hugging Face directory.  artefacts: folder of profiles.json, adapters/ and heldout/."""

    name: str
    checkpoint: Path
    artefacts: Path
    max_new_tokens: int


BASES = {
    "tiny": DemoBase("tiny", _BUILD / "tiny", _BUILD / "tiny", tiny.MAX_NEW_TOKENS),
    "smollm2": DemoBase("smollm2", DIRECTORY, _BUILD / "smollm2", smollm2.MAX_NEW_TOKENS),
}


class ShownExample(msgspec.Struct, frozen=True):
    """A prompt to try and the answer that is right for it."""

    prompt: str
    answer: str


class ProfileDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of profiles.json; adapters are folders relative to it, task names a held-out set beside it."""

    tenant: str
    name: str
    adapters: tuple[str, ...]
    task: str
    description: str
    instruction: str
    example: ShownExample

    @property
    def full_name(self) -> str:
        return f"{self.tenant}/{self.name}"


def read_profiles(base: DemoBase) -> list[ProfileDocument]:
    """
    The base's demo profiles, in the order of the file.

    Raises:
        msgspec.ValidationError: the file has another shape.
    """
    return msgspec.json.decode((base.artefacts / "profiles.json").read_bytes(), type=list[ProfileDocument])
