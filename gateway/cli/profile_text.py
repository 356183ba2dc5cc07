"""
Profiles in words: a row of a table, a version's details, an adapter in one line.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

from gateway.adapters.modules import MODULES
from gateway.cli.output import CommandError, Exit, plain
from gateway.registry.views import AdapterView, ProfileView, VersionView


def row(profile: ProfileView) -> list[str]:
    """TENANT, NAME, LIVE, VERSIONS, KIND, BASE, CHANGED."""
    present = [version for version in profile.versions if not version.retired]
    told = next((version for version in present if version.number == profile.live), present[-1])
    return [
        plain(profile.tenant),
        plain(profile.name),
        "-" if profile.live is None else str(profile.live),
        str(len(present)),
        plain(" + ".join(_kind(adapter) for adapter in told.adapters)),
        plain(told.base),
        _time(max(version.created for version in present))[:10],
    ]


def details(profile: ProfileView, only: str | None) -> Iterator[str]:
    """
    The profile, then each version, newest first; or one version in full.

    Raises:
        CommandError: `only` names no version.
    """
    yield f"[bold]{plain(profile.tenant)}/{plain(profile.name)}[/]"
    yield f"live: {'none' if profile.live is None else profile.live}"
    if profile.grants:
        yield f"granted to: {plain(', '.join(profile.grants))}"
    versions = [version for version in profile.versions if only in (None, str(version.number), version.digest)]
    versions += [version for version in profile.versions if only is not None and only in version.labels]
    if not versions:
        raise CommandError(f"{profile.tenant}/{profile.name} has no version {only}.", Exit.NOT_FOUND, code="not_found")
    for version in reversed(versions):
        yield ""
        yield from _version(version)


def adapter(view: AdapterView) -> str:
    """One line: what it is, where it acts, how it is computed."""
    parts = [_kind(view)]
    if view.ranks:
        least, largest = view.ranks
        parts.append(f"rank {least}" if least == largest else f"ranks {least} to {largest}")
    if view.modules:
        where = "all seven projections" if len(view.modules) == len(MODULES) else ", ".join(view.modules)
        parts.append(f"{where} in {view.layers} layers")
    if view.virtual_tokens:
        parts.append(f"{view.virtual_tokens} virtual tokens")
    if view.formula and view.formula != "table":
        parts.append(f"y = {view.formula}")
    parts.append(f"{view.weights_bytes:,} bytes")
    return "; ".join(parts)


def _version(version: VersionView) -> Iterator[str]:
    marks = [*version.labels, *(["retired"] if version.retired else [])]
    if not version.servable and not version.retired:
        marks.append("no engine here can serve it")
    yield f"[bold]version {version.number}[/]{' (' + plain(', '.join(marks)) + ')' if marks else ''}"
    yield f"  {version.digest}"
    yield f"  registered {_time(version.created)} UTC for base {plain(version.base)}"
    for item in version.adapters:
        yield f"  {plain(adapter(item))}"
        for note in item.notes:
            yield f"  [yellow]note:[/] {plain(note)}"
    if version.description:
        yield f"  description: {plain(version.description)}"
    if version.instruction:
        yield f"  instruction: {plain(version.instruction)}"
    for derived in version.derived:
        ids = [f"lora_task_id {derived.lora_task_id}"] if derived.lora_task_id else []
        ids += [f"prompt extra id {derived.prompt_extra_id}"] if derived.prompt_extra_id else []
        yield f"  engine tensors {derived.tensor_key[:12]}…: {derived.bytes:,} bytes, {', '.join(ids)}"


def _kind(view: AdapterView) -> str:
    named = {"LORA": "LoRA", "IA3": "IA3", "PROMPT_TUNING": "prompt tuning", "P_TUNING": "p-tuning"}
    kind = named.get(view.peft_type, view.peft_type)
    if kind == "LoRA" and view.formula.startswith("m *"):
        kind = "DoRA"
    return f"rs{kind}" if "sqrt" in view.formula else kind


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
