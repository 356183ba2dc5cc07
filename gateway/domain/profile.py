"""
The one object of the product: what a caller's `model` names.

Decides the grammar of model names and what one servable version of a profile holds. Does not know where versions are
recorded, nor whether a caller may use one (gateway/stores answers both from its catalog).
"""

import re
from dataclasses import dataclass
from typing import Literal

from gateway.domain.adapter import LoraAdapter, PromptTable

_NAME = r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?"
_MODEL = re.compile(
    rf"(?:(?P<owner>{_NAME})/)?(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]{{0,126}}[A-Za-z0-9])?)"
    rf"(?:@(?:(?P<number>[1-9][0-9]{{0,8}})|(?P<digest>sha256:[0-9a-f]{{64}})|(?P<label>[a-z][a-z0-9-]{{0,31}})))?"
)
_PROFILE_NAME = re.compile(_NAME)


@dataclass(frozen=True, slots=True)
class ModelName:
    """A parsed model name: owner or None for the caller's own, name, and at most one way to pick the version."""

    owner: str | None
    name: str
    selector: int | str
    """A version number, a digest `sha256:…`, or a label; `live` where the caller gave none."""

    @classmethod
    def parse(cls, text: str) -> "ModelName | None":
        """`support-bot`, `support-bot@3`, `support-bot@canary`, `globex/support-bot@sha256:…`; or None."""
        match = _MODEL.fullmatch(text) if len(text) <= 256 else None
        if match is None:
            return None
        number, digest, label = match["number"], match["digest"], match["label"]
        return cls(match["owner"], match["name"], int(number) if number else digest or label or "live")


def is_profile_name(text: str) -> bool:
    """Tenant and profile names: lower-case letters, digits, `.`, `_`, `-`; 1 to 64 characters."""
    return _PROFILE_NAME.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """
    One version of a profile, ready to be served by the engines of its base.

    A base model is a profile too: no owner, version 0, no adapter.
    """

    tenant: str | None
    name: str
    version: int
    digest: str
    base: str
    lora: LoraAdapter | None = None
    prompt: PromptTable | None = None
    instruction: str | None = None
    created: int = 0

    @property
    def kind(self) -> Literal["base", "lora", "virtual-tokens", "lora+virtual-tokens"]:
        match self.lora is not None, self.prompt is not None:
            case True, True:
                return "lora+virtual-tokens"
            case True, False:
                return "lora"
            case False, True:
                return "virtual-tokens"
        return "base"
