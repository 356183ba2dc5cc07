"""
What is recorded about a profile: its versions, its labels, the tensors derived for engines, and its entry in the
catalog.

Decides the shape of every record that is written to the adapter store or to the catalog's index, and what makes two
versions the same. Does not read or write them (gateway/stores does).
"""

import hashlib
from typing import Literal

import msgspec

from gateway.domain.manifest import Dtype


class Blob(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes as they were handed in, found by their SHA-256 (hexadecimal)."""

    sha256: str
    bytes: int


class AdapterSource(msgspec.Struct, frozen=True, kw_only=True):
    """One adapter of a version. `canonical`: SHA-256 of its configuration without the places of one machine."""

    kind: Literal["lora", "virtual-tokens"]
    peft_type: str
    config: Blob
    canonical: str
    weights: Blob


class ProfileDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    What an engineer says about a version beside the adapter's files; part of what the version is.

    `instruction`: the written-out prompt that the adapter replaces, for the rungs of the ladder without it.
    """

    base: str
    instruction: str | None = None
    description: str | None = None


class VersionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One immutable version. `created`: seconds since 1970. `any_base_name`: the engineer waived that check."""

    number: int
    digest: str
    created: int
    document: ProfileDocument
    adapters: tuple[AdapterSource, ...]
    any_base_name: bool = False


class ProfileState(msgspec.Struct, frozen=True, kw_only=True):
    """
    What may change about a profile: which of its versions exist and what the labels point at.

    `versions`: numbers that exist; a version's own file counts only when it is named here. `previous_live`: what `live`
    pointed at before, oldest first.
    """

    tenant: str
    name: str
    created: int
    versions: tuple[int, ...] = ()
    retired: tuple[int, ...] = ()
    labels: dict[str, int] = {}
    previous_live: tuple[int, ...] = ()
    grants: tuple[str, ...] = ()

    @property
    def live(self) -> int | None:
        return self.labels.get("live")

    @property
    def present(self) -> tuple[int, ...]:
        """Versions that may be named."""
        return tuple(number for number in self.versions if number not in self.retired)


class DerivedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of raw bytes beside its record."""

    name: str
    bytes: int
    sha256: str


class DerivedLora(msgspec.Struct, frozen=True, kw_only=True):
    """Weights [rows, width] of `dtype` and config [rows, columns] int32; see gateway.domain.adapter.LoraAdapter."""

    rows: int
    width: int
    columns: int
    dtype: Dtype
    max_rank: int
    weights: DerivedFile
    config: DerivedFile


class DerivedPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """Table [rows, hidden] of `dtype`; see gateway.domain.adapter.PromptTable."""

    rows: int
    hidden: int
    dtype: Dtype
    table: DerivedFile


class AdapterReport(msgspec.Struct, frozen=True, kw_only=True):
    """How one adapter was converted, for people. `ranks`: as trained, least and largest. `notes`: what to know."""

    peft_type: str
    formula: str
    layers: int = 0
    modules: tuple[str, ...] = ()
    ranks: tuple[int, ...] = ()
    virtual_tokens: int = 0
    notes: tuple[str, ...] = ()


class Conversion(msgspec.Struct, frozen=True, kw_only=True):
    """What a conversion made."""

    converter: int
    lora: DerivedLora | None
    prompt: DerivedPrompt | None
    reports: tuple[AdapterReport, ...]


class Derived(msgspec.Struct, frozen=True, kw_only=True):
    """
    A version's tensors for the engines that share a tensor key, owned by one tenant.

    `folder`: relative to the store's directory. `task_id`, `extra_id`: from the bytes, the engine and the owner, so
    that other bytes, another engine or another owner never share an engine's cache; 0 where that part is absent.
    """

    folder: str
    tensor_key: str
    task_id: int
    extra_id: int
    conversion: Conversion


class CatalogVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version as the catalog's index holds it, with everything derived for it."""

    number: int
    digest: str
    base: str
    created: int
    instruction: str | None = None
    derived: tuple[Derived, ...] = ()


class CatalogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A profile as the catalog's index holds it; retired versions are absent."""

    tenant: str
    name: str
    created: int
    labels: dict[str, int]
    grants: tuple[str, ...]
    versions: tuple[CatalogVersion, ...]


def version_digest(document: ProfileDocument, adapters: tuple[AdapterSource, ...]) -> str:
    """`sha256:` and 64 hexadecimal digits over what was handed in; where it lay and who sent it play no part."""
    handed_in = {
        "format": 1,
        "base": document.base,
        "instruction": document.instruction,
        "description": document.description,
        "adapters": sorted(
            ({"kind": item.kind, "config": item.canonical, "weights": item.weights.sha256} for item in adapters),
            key=lambda item: item["kind"],
        ),
    }
    return "sha256:" + hashlib.sha256(msgspec.json.encode(handed_in, order="sorted")).hexdigest()


def engine_id(*, content: str, tensor_key: str, tenant: str) -> int:
    """
    An id from 1 to 2^63 - 1 under which an engine may keep these bytes for this tenant.

    `content`: digest of the derived bytes. Engines ignore new weights under an id they hold, and key reusable KV
    blocks by it, so the id has to change with anything that must not be shared.
    """
    seed = "\n".join(("tailor-engine-id-1", content, tensor_key, tenant))
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big") >> 1
    return number or 1
