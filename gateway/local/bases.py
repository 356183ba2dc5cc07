"""
The base models a local run can serve, and how each comes to lie on the disk.

Decides their names and folders. Does not know how one is converted or trained (build/).
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from gateway.local.layout import REPOSITORY


class BaseName(StrEnum):
    """What `--base` takes."""

    SMOLLM2 = "smollm2"
    TINY = "tiny"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalBase:
    """
    `model` is what callers name it; `checkpoint` its Hugging Face directory; `demo` the folder of its demo profiles.

    `builder` is the module that makes the checkpoint where it is absent; None where it is committed.
    """

    key: BaseName
    model: str
    checkpoint: Path
    demo: Path
    builder: str | None
    question: str
    """What a person may ask the bare base with success."""

    @property
    def is_present(self) -> bool:
        return (self.checkpoint / "model.safetensors").is_file()


BASES = {
    base.key: base
    for base in (
        LocalBase(
            key=BaseName.SMOLLM2,
            model="SmolLM2-135M-Instruct",
            checkpoint=REPOSITORY / ".cache" / "models" / "smollm2-135m-instruct",
            demo=REPOSITORY / "build" / "smollm2",
            builder="build.smollm2_base",
            question="What is the capital of France?",
        ),
        LocalBase(
            key=BaseName.TINY,
            model="tiny",
            checkpoint=REPOSITORY / "build" / "tiny",
            demo=REPOSITORY / "build" / "tiny",
            builder=None,
            question="where does paul of ember live ?",
        ),
    )
}
