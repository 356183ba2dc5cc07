"""
What the registry tells people about profiles. Shapes only; the admin API sends them and the command line reads them.
"""

from dataclasses import dataclass
from typing import Literal

from gateway.domain.version import AdapterReport, CatalogEntry, CatalogVersion, Derived, ProfileState, VersionRecord

RegistrationOutcome = Literal["registered", "unchanged", "restored"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterView:
    """One adapter of a version. `sha256` is of its weights as handed in; the rest is how it was converted."""

    kind: str
    peft_type: str
    weights_bytes: int
    sha256: str
    formula: str = ""
    layers: int = 0
    modules: tuple[str, ...] = ()
    ranks: tuple[int, ...] = ()
    virtual_tokens: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedView:
    """Tensors for one kind of engine. Ids are text, because they need 63 bits."""

    tensor_key: str
    bytes: int
    lora_task_id: str | None
    prompt_extra_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionView:
    """`servable`: whether tensors are there for every present engine of its base."""

    number: int
    digest: str
    created: int
    base: str
    retired: bool
    labels: tuple[str, ...]
    servable: bool
    adapters: tuple[AdapterView, ...]
    derived: tuple[DerivedView, ...]
    instruction: str | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileView:
    """A profile; its versions oldest first, retired ones too."""

    tenant: str
    name: str
    created: int
    live: int | None
    previous_live: tuple[int, ...]
    grants: tuple[str, ...]
    versions: tuple[VersionView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """
    What became of a registration.

    `outcome`: `unchanged` where the same content was there already, `restored` where it had been retired. `live`: the
    version that the bare name means now.
    """

    outcome: RegistrationOutcome
    tenant: str
    name: str
    live: int | None
    version: VersionView


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelMoved:
    """Where `live` pointed and points."""

    tenant: str
    name: str
    before: int | None
    live: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """Versions that were retired; their numbers are never used again."""

    tenant: str
    name: str
    retired: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """
    `problems` is empty where everything is as it was registered. `repaired`: what had to be derived again, and was.
    """

    tenant: str
    name: str
    version: int
    ok: bool
    problems: tuple[str, ...]
    repaired: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantView:
    """A tenant, the bases it may call bare, and how many profiles it has."""

    name: str
    bases: tuple[str, ...]
    profiles: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Underived:
    """A version that a present engine cannot serve, and why."""

    tenant: str
    name: str
    version: int
    base: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything recorded about a profile, as read in one go. `derived`: by version number."""

    state: ProfileState
    versions: tuple[VersionRecord, ...]
    derived: dict[int, tuple[Derived, ...]]

    def version(self, number: int) -> VersionRecord:
        return next(record for record in self.versions if record.number == number)


def profile_view(snapshot: Snapshot, wanted_keys: dict[str, frozenset[str]]) -> ProfileView:
    """`wanted_keys`: tensor keys of the present engines, by base."""
    state = snapshot.state
    return ProfileView(
        tenant=state.tenant,
        name=state.name,
        created=state.created,
        live=state.live,
        previous_live=state.previous_live,
        grants=state.grants,
        versions=tuple(version_view(snapshot, record, wanted_keys) for record in snapshot.versions),
    )


def version_view(snapshot: Snapshot, record: VersionRecord, wanted_keys: dict[str, frozenset[str]]) -> VersionView:
    """One version of a profile."""
    state, derived = snapshot.state, snapshot.derived.get(record.number, ())
    wanted = wanted_keys.get(record.document.base, frozenset())
    reports = derived[0].conversion.reports if derived else ()
    return VersionView(
        number=record.number,
        digest=record.digest,
        created=record.created,
        base=record.document.base,
        retired=record.number in state.retired,
        labels=tuple(sorted(label for label, number in state.labels.items() if number == record.number)),
        servable=bool(wanted) and wanted <= {item.tensor_key for item in derived},
        adapters=tuple(
            _adapter_view(record, index, reports[index] if index < len(reports) else None)
            for index in range(len(record.adapters))
        ),
        derived=tuple(_derived_view(item) for item in derived),
        instruction=record.document.instruction,
        description=record.document.description,
    )


def _adapter_view(record: VersionRecord, index: int, report: AdapterReport | None) -> AdapterView:
    source = record.adapters[index]
    if report is None:
        return AdapterView(
            kind=source.kind,
            peft_type=source.peft_type,
            weights_bytes=source.weights.bytes,
            sha256=source.weights.sha256,
        )
    return AdapterView(
        kind=source.kind,
        peft_type=source.peft_type,
        weights_bytes=source.weights.bytes,
        sha256=source.weights.sha256,
        formula=report.formula,
        layers=report.layers,
        modules=report.modules,
        ranks=report.ranks,
        virtual_tokens=report.virtual_tokens,
        notes=report.notes,
    )


def _derived_view(derived: Derived) -> DerivedView:
    lora, prompt = derived.conversion.lora, derived.conversion.prompt
    return DerivedView(
        tensor_key=derived.tensor_key,
        bytes=(0 if lora is None else lora.weights.bytes + lora.config.bytes)
        + (0 if prompt is None else prompt.table.bytes),
        lora_task_id=None if lora is None else str(derived.task_id),
        prompt_extra_id=None if prompt is None else str(derived.extra_id),
    )


def catalog_entry(snapshot: Snapshot) -> CatalogEntry:
    """What gateways need to serve the profile: versions that are present, with what was derived for them."""
    state = snapshot.state
    return CatalogEntry(
        tenant=state.tenant,
        name=state.name,
        created=state.created,
        labels=state.labels,
        grants=state.grants,
        versions=tuple(
            CatalogVersion(
                number=record.number,
                digest=record.digest,
                base=record.document.base,
                created=record.created,
                instruction=record.document.instruction,
                derived=snapshot.derived.get(record.number, ()),
            )
            for record in snapshot.versions
            if record.number in state.present
        ),
    )
