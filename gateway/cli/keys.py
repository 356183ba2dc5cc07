"""
`tailor keys`: make API keys. A key is shown once; the configuration holds only its hash.
"""

from typing import Annotated

import typer

from gateway.cli.output import CommandError, Exit, plain, print_json, reports_errors, say
from gateway.cli.settings import setting
from gateway.domain.keys import new_key

PEPPER = "TAILOR_KEY_PEPPER"

app = typer.Typer(no_args_is_help=True, help="Make API keys.")


@app.callback()
def _group() -> None:
    """Make API keys."""


@app.command(epilog="Example: tailor keys new --tenant acme")
@reports_errors
def new(
    tenant: Annotated[
        str | None, typer.Option("--tenant", "-t", help="For this tenant's callers.", show_default=False)
    ] = None,
    admin: Annotated[bool, typer.Option("--admin", help="For the admin API instead.")] = False,
    name: Annotated[str, typer.Option(help="Who holds it, for people who read the configuration.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs, errors too.")] = False,
) -> None:
    """Make a key and print the lines that go into tailor.yaml. Needs the gateway's pepper in TAILOR_KEY_PEPPER."""
    if admin == (tenant is not None):
        raise CommandError("Say whom the key is for: --tenant TENANT or --admin.", Exit.USAGE)
    pepper = setting(PEPPER)
    if not pepper:
        raise CommandError(
            f"Set {PEPPER} to the gateway's key_pepper; a key made under another pepper would never match.", Exit.USAGE
        )
    key = new_key(pepper)
    if as_json:
        print_json({"key": key.text, "id": key.id, "hash": key.hash, "tenant": tenant, "admin": admin, "name": name})
        return
    label = f', name: "{plain(name)}"' if name else ""
    say(f"[bold]{key.text}[/]")
    say("This is the only time it is shown. Add to tailor.yaml, under " + _place(tenant) + ":")
    say(f'  - {{id: "{key.id}", hash: "{key.hash}"{label}}}')


def _place(tenant: str | None) -> str:
    return "[bold]admin_keys[/]" if tenant is None else f"[bold]keys[/] of tenant {plain(tenant)}"
