"""
Options that several commands share, and how a profile is named on the command line.
"""

from typing import Annotated, NamedTuple

import typer

from gateway.cli.output import CommandError, Exit
from gateway.domain.profile import ModelName

Url = Annotated[
    str | None,
    typer.Option("--url", envvar="TAILOR_ADMIN_URL", help="The gateway's admin address.", show_default=False),
]
AdminKey = Annotated[
    str | None, typer.Option("--admin-key", envvar="TAILOR_ADMIN_KEY", help="An admin key.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs, errors too.")]
Tenant = Annotated[
    str | None, typer.Option("--tenant", "-t", help="Whose profile it is, unless PROFILE says it.", show_default=False)
]
ProfileArgument = Annotated[
    str, typer.Argument(metavar="PROFILE", help="NAME, NAME@VERSION or TENANT/NAME@VERSION.", show_default=False)
]


class Named(NamedTuple):
    """A profile as named on the command line; `version` is None where none was given."""

    tenant: str
    name: str
    version: str | None


def named(profile: str, tenant: str | None) -> Named:
    """
    Who and what `PROFILE` and `--tenant` mean together.

    Raises:
        CommandError: it is no profile's name, or no tenant is given.
    """
    parsed = ModelName.parse(profile)
    if parsed is None:
        raise CommandError(f"{profile!r} is no profile's name; write NAME, NAME@3 or TENANT/NAME@3.", Exit.USAGE)
    if parsed.owner is not None and tenant is not None and parsed.owner != tenant:
        raise CommandError(f"{profile} belongs to {parsed.owner}, not to {tenant}; leave out --tenant.", Exit.USAGE)
    owner = parsed.owner or tenant
    if owner is None:
        raise CommandError(f"Say whose profile it is: --tenant TENANT, or TENANT/{profile}.", Exit.USAGE)
    return Named(owner, parsed.name, str(parsed.selector) if "@" in profile else None)
