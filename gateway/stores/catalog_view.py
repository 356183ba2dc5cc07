"""
The catalog as one gateway sees it: entries of the index turned into profiles that its engines can serve.

Decides who may name what, and which version a name means. Holds everything in memory and is never changed; a newer
index makes a newer view. Does not know where entries come from.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from gateway.domain.adapter import LoraAdapter, PromptTable
from gateway.domain.manifest import EngineManifest
from gateway.domain.profile import ModelName, Profile
from gateway.domain.tenant import Tenant
from gateway.domain.version import CatalogEntry, CatalogVersion, Derived


@dataclass(frozen=True, slots=True)
class Listed:
    """A profile of the index: its servable versions by number, digest and label, and who else may use it."""

    by_selector: Mapping[int | str, Profile]
    grants: frozenset[str]


class ProfileBuilder:
    """Turns entries into profiles for the engines of one gateway."""

    def __init__(self, engines: Iterable[EngineManifest], store: Path) -> None:
        """
        `store`: the adapter store's directory, where derived files lie. Of several engines of a base the first
        counts.
        """
        self._store = store
        self._keys: dict[str, str] = {}
        for engine in engines:
            self._keys.setdefault(engine.base.name, engine.tensor_key)

    @property
    def bases(self) -> dict[str, Profile]:
        """The base models themselves, by name."""
        return {name: Profile(tenant=None, name=name, version=0, digest="", base=name) for name in self._keys}

    def build(self, entry: CatalogEntry) -> Listed:
        """Versions without tensors for an engine here are left out: nobody could answer them."""
        selectors: dict[int | str, Profile] = {}
        for version in entry.versions:
            key = self._keys.get(version.base)
            derived = next((item for item in version.derived if item.tensor_key == key), None)
            if derived is not None and _stays_below(derived):
                profile = self._profile(entry, version, derived)
                selectors[version.number] = selectors[version.digest] = profile
        for label, number in entry.labels.items():
            if number in selectors:
                selectors[label] = selectors[number]
        return Listed(selectors, frozenset(entry.grants))

    def _profile(self, entry: CatalogEntry, version: CatalogVersion, derived: Derived) -> Profile:
        folder = self._store / derived.folder
        lora, prompt = derived.conversion.lora, derived.conversion.prompt
        return Profile(
            tenant=entry.tenant,
            name=entry.name,
            version=version.number,
            digest=version.digest,
            base=version.base,
            lora=None
            if lora is None
            else LoraAdapter(
                task_id=derived.task_id,
                rows=lora.rows,
                width=lora.width,
                columns=lora.columns,
                dtype=lora.dtype,
                weights=folder / lora.weights.name,
                config=folder / lora.config.name,
            ),
            prompt=None
            if prompt is None
            else PromptTable(
                extra_id=derived.extra_id,
                rows=prompt.rows,
                hidden=prompt.hidden,
                dtype=prompt.dtype,
                table=folder / prompt.table.name,
            ),
            instruction=version.instruction,
            created=version.created,
        )


class CatalogView:
    """What names mean, at one revision of the index."""

    def __init__(self, bases: Mapping[str, Profile], profiles: Mapping[tuple[str, str], Listed]) -> None:
        self._bases = bases
        self._profiles = profiles

    def resolve(self, tenant: Tenant, name: ModelName) -> Profile | None:
        """As gateway.ports.ProfileCatalog. A profile of another tenant is unknown unless it was granted."""
        listed = self._profiles.get((name.owner or tenant.name, name.name))
        if listed is not None and (name.owner in (None, tenant.name) or tenant.name in listed.grants):
            return listed.by_selector.get(name.selector)
        if name.owner is None and name.selector == "live" and name.name in tenant.bases:
            return self._bases.get(name.name)
        return None

    def visible(self, tenant: Tenant) -> Sequence[Profile]:
        """As gateway.ports.ProfileCatalog."""
        own: list[Profile] = []
        granted: list[Profile] = []
        for (owner, _), listed in sorted(self._profiles.items()):
            live = listed.by_selector.get("live")
            if live is None:
                continue
            if owner == tenant.name:
                own.append(live)
            elif tenant.name in listed.grants:
                granted.append(live)
        return [*own, *granted, *(self._bases[name] for name in sorted(tenant.bases) if name in self._bases)]


def _stays_below(derived: Derived) -> bool:
    """Whether every file of it lies below the store: what Redis says may open no other file."""
    lora, prompt = derived.conversion.lora, derived.conversion.prompt
    files = ([lora.weights, lora.config] if lora else []) + ([prompt.table] if prompt else [])
    paths = [PurePath(derived.folder, file.name) for file in files]
    return not any(path.is_absolute() or ".." in path.parts for path in paths)
