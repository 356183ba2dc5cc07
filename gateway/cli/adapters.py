"""
`tailor adapters`: from a directory that peft wrote to a profile that callers name, and back.

Decides what is said after each step; the work is done by the gateway behind the admin API.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from gateway.adapters.archive import ProfileNotes, archive, archive_size
from gateway.adapters.directory import AdapterFiles, find_adapter
from gateway.adapters.refusal import AdapterRefused
from gateway.cli import profile_text
from gateway.cli.client import AdminClient
from gateway.cli.options import AdminKey, AsJson, ProfileArgument, Tenant, Url, named
from gateway.cli.output import CommandError, Exit, plain, print_json, print_table, reports_errors, say, upload_progress
from gateway.cli.settings import admin_settings
from gateway.domain.registry_errors import RegistryError
from gateway.registry.limits import Registration
from gateway.registry.views import Registered

app = typer.Typer(
    no_args_is_help=True,
    help="Register adapters, and say which version callers get.",
    epilog="A first version is live at once. Later ones wait for `promote`, so that adding never changes an answer.",
)


@app.command(epilog="Example: tailor adapters add ./my-lora --tenant acme --name support-bot --instruction @prompt.txt")
@reports_errors
def add(
    directories: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR [DIR2]",
            help="What peft's save_pretrained wrote; a second one for virtual tokens beside LoRA.",
            show_default=False,
        ),
    ],
    tenant: Annotated[str, typer.Option("--tenant", "-t", help="Whose profile it is.")],
    name: Annotated[str, typer.Option("--name", "-n", help="What callers put in `model`.")],
    base: Annotated[
        str | None, typer.Option(help="The base model, where the gateway serves several.", show_default=False)
    ] = None,
    instruction: Annotated[
        str | None,
        typer.Option(help="The prompt that the adapter replaces, or @FILE with it.", show_default=False),
    ] = None,
    description: Annotated[str | None, typer.Option(help="A line for people.", show_default=False)] = None,
    promote: Annotated[bool, typer.Option("--promote", help="Make it live at once.")] = False,
    any_base_name: Annotated[
        bool,
        typer.Option("--any-base-name", help="Accept an adapter whose configuration names its base otherwise."),
    ] = False,
    url: Url = None,
    admin_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Register a directory as a new version of a profile."""
    if len(directories) > 2:
        raise CommandError("A profile carries one or two adapters; name one or two directories.", Exit.USAGE)
    notes = ProfileNotes(instruction=_text(instruction), description=description)
    with AdminClient(admin_settings(url, admin_key)) as client:
        files = _find(directories)
        # Before the upload: a wrong key or tenant should not cost minutes.
        known = [item.name for item in client.tenants()]
        if tenant not in known:
            raise CommandError(
                f"There is no tenant {tenant}; there is {', '.join(known) or 'none'}.", Exit.NOT_FOUND, code="not_found"
            )
        nbytes = archive_size(files, notes)
        with upload_progress(nbytes, quiet=as_json) as advance:
            registered = client.register(
                Registration(tenant=tenant, name=name, base=base, promote=promote, any_base_name=any_base_name),
                _counted(files, notes, advance),
                nbytes,
            )
    if as_json:
        print_json(registered)
    else:
        _say_registered(registered)


@app.command("list")
@reports_errors
def list_profiles(tenant: Tenant = None, url: Url = None, admin_key: AdminKey = None, as_json: AsJson = False) -> None:
    """List profiles and what is live."""
    with AdminClient(admin_settings(url, admin_key)) as client:
        profiles = client.profiles(tenant)
    if as_json:
        print_json(profiles)
    elif not profiles:
        say("No profiles yet. Register one: [bold]tailor adapters add DIR --tenant TENANT --name NAME[/]")
    else:
        print_table(
            ["TENANT", "NAME", "LIVE", "VERSIONS", "KIND", "BASE", "CHANGED"],
            [profile_text.row(profile) for profile in profiles],
            right=("LIVE", "VERSIONS"),
        )


@app.command()
@reports_errors
def show(
    profile: ProfileArgument,
    tenant: Tenant = None,
    url: Url = None,
    admin_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Show a profile and its versions."""
    who = named(profile, tenant)
    with AdminClient(admin_settings(url, admin_key)) as client:
        shown = client.profile(who.tenant, who.name)
    if as_json:
        print_json(shown)
        return
    for line in profile_text.details(shown, who.version):
        say(line)


@app.command()
@reports_errors
def verify(
    profile: ProfileArgument,
    tenant: Tenant = None,
    url: Url = None,
    admin_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Check a version's stored bytes and convert it again; without @VERSION, the live one."""
    who = named(profile, tenant)
    with AdminClient(admin_settings(url, admin_key)) as client:
        result = client.verify(who.tenant, who.name, who.version or "live")
    if as_json:
        print_json(result)
    else:
        title = f"{who.tenant}/{who.name}@{result.version}"
        for line in (*result.repaired, *result.problems):
            say(f"  {plain(line)}")
        say(f"[green]{title} is intact.[/]" if result.ok else f"[red]{title} is not as it was registered.[/]")
    if not result.ok:
        raise typer.Exit(int(Exit.REFUSED))


@app.command()
@reports_errors
def promote(
    profile: ProfileArgument,
    tenant: Tenant = None,
    url: Url = None,
    admin_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Make a version live: tailor adapters promote support-bot@2 --tenant acme"""
    who = named(profile, tenant)
    if who.version is None:
        raise CommandError(f"Say which version: {profile}@NUMBER.", Exit.USAGE)
    with AdminClient(admin_settings(url, admin_key)) as client:
        moved = client.promote(who.tenant, who.name, who.version)
    if as_json:
        print_json(moved)
    elif moved.before == moved.live:
        say(f"{who.tenant}/{who.name}@{moved.live} was live already.")
    else:
        say(f"[green]{who.tenant}/{who.name}@{moved.live} is live[/], on every gateway within two seconds.")
        if moved.before is not None:
            say(f"Back to version {moved.before}: [bold]tailor adapters rollback {who.tenant}/{who.name}[/]")


@app.command()
@reports_errors
def rollback(
    profile: ProfileArgument,
    tenant: Tenant = None,
    url: Url = None,
    admin_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Make the version live that was live before."""
    who = named(profile, tenant)
    if who.version is not None:
        raise CommandError(
            f"rollback takes no version; to choose one: tailor adapters promote {who.tenant}/{who.name}@{who.version}",
            Exit.USAGE,
        )
    with AdminClient(admin_settings(url, admin_key)) as client:
        moved = client.rollback(who.tenant, who.name)
    if as_json:
        print_json(moved)
    else:
        say(f"[green]{who.tenant}/{who.name}@{moved.live} is live again[/]; it was version {moved.before}.")


@app.command()
@reports_errors
def remove(
    profile: ProfileArgument,
    tenant: Tenant = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a whole profile goes.")] = False,
    url: Url = None,
    admin_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Retire a version (NAME@3) or a whole profile. Adding the same directory again restores it."""
    who = named(profile, tenant)
    if who.version is None and not yes:
        if as_json:
            raise CommandError("Removing a whole profile needs --yes.", Exit.USAGE)
        typer.confirm(f"Callers of {who.tenant}/{who.name} will get 404. Remove all its versions?", abort=True)
    with AdminClient(admin_settings(url, admin_key)) as client:
        removed = client.remove(who.tenant, who.name, who.version)
    if as_json:
        print_json(removed)
    elif not removed.retired:
        say("It was retired already.")
    else:
        numbers = ", ".join(str(number) for number in removed.retired)
        say(f"Retired {who.tenant}/{who.name}: version {numbers}.")


def _find(directories: list[Path]) -> list[AdapterFiles]:
    try:
        return [find_adapter(directory) for directory in directories]
    except AdapterRefused as refused:
        raise CommandError(
            str(refused), code="adapter_invalid", details={"reason": refused.code.value, **refused.details}
        ) from refused


def _text(value: str | None) -> str | None:
    if value is None or not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{value[1:]} cannot be read as text: {error}.", Exit.USAGE) from error


def _counted(files: list[AdapterFiles], notes: ProfileNotes, advance: Callable[[int], None]) -> Iterator[bytes]:
    try:
        for piece in archive(files, notes):
            yield piece
            advance(len(piece))
    except (OSError, RegistryError) as error:
        raise CommandError(f"The adapter's files cannot be read: {error}.") from error


def _say_registered(registered: Registered) -> None:
    version, name = registered.version, f"{registered.tenant}/{registered.name}"
    verb = {
        "registered": "Registered",
        "unchanged": "Nothing new: the same content is",
        "restored": "Restored, the same content was",
    }[registered.outcome]
    say(f"[green]{verb}[/] [bold]{name}@{version.number}[/] ({version.digest[:19]}…) on {plain(version.base)}")
    for adapter in version.adapters:
        say(f"  {plain(profile_text.adapter(adapter))}")
        for note in adapter.notes:
            say(f"  [yellow]note:[/] {plain(note)}")
    if registered.live == version.number:
        say(f'It is live: [bold]model="{registered.name}"[/]')
    else:
        say(
            f'It is not live; version {registered.live} is. Try it: [bold]model="{registered.name}@{version.number}"[/]'
        )
        say(f"Make it live: [bold]tailor adapters promote {name}@{version.number}[/]")
