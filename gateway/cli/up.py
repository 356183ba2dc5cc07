"""
`tailor up`: the whole stack on this machine, in the foreground.

Decides options, and how an ended run is told. The work is gateway/local's; demo profiles are registered as an engineer
would register them, through the admin API.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gateway.adapters.archive import ProfileNotes, archive, archive_size
from gateway.adapters.directory import find_adapter
from gateway.adapters.refusal import AdapterRefused
from gateway.cli.client import AdminClient
from gateway.cli.output import CommandError, plain, reports_errors
from gateway.cli.settings import AdminSettings
from gateway.local.bases import BaseName
from gateway.local.demo import DemoProfile
from gateway.local.errors import LocalRunError, ServiceDied, StopAsked
from gateway.local.stack import AdminAccess, Options, run_stack
from gateway.registry.limits import Registration


@reports_errors
def up(
    base: Annotated[BaseName, typer.Option(help="The base model to serve.")] = BaseName.SMOLLM2,
    run_dir: Annotated[Path, typer.Option(help="Where logs, data and keys of the run lie.")] = Path(".run"),
    port: Annotated[int | None, typer.Option(help="Another port for the gateway.", show_default=False)] = None,
    port_offset: Annotated[
        int, typer.Option(envvar=["TAILOR_PORT_OFFSET", "PORT_OFFSET"], help="Move every port by this number.")
    ] = 0,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that answer callers.")] = 1,
    demo: Annotated[bool, typer.Option("--demo/--no-demo", help="Register the demo profiles.")] = True,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Build the engine with another limit, such as lora-cache-bytes=1000000; may be repeated.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="When ready, print one JSON line on stdout; everything else on stderr.")
    ] = False,
) -> None:
    """Start Valkey, Triton and the gateway on this machine, and stop them all with Ctrl-C."""
    console = Console(stderr=as_json)
    options = Options(
        base=base,
        run_directory=run_dir,
        port=port,
        port_offset=port_offset,
        workers=workers,
        demo=demo,
        as_json=as_json,
        engine=tuple(f"--{setting}" for setting in engine or ()),
    )
    try:
        run_stack(options, _register, console)
    except StopAsked as asked:
        console.print(f"[dim]stopped ({asked})[/]", highlight=False)
    except ServiceDied as died:
        for line in died.tail.splitlines():
            console.print(f"  [dim]{plain(line)}[/]", highlight=False, soft_wrap=True)
        raise CommandError(str(died)) from died
    except LocalRunError as error:
        raise CommandError(str(error)) from error


def _register(access: AdminAccess, profile: DemoProfile) -> bool:
    """
    A demo adapter that is new here goes live; one that was here before leaves alone what was promoted since.

    Raises:
        LocalRunError: the gateway refuses it.
    """
    try:
        files = [find_adapter(Path(directory)) for directory in profile.directories]
        notes = ProfileNotes(instruction=profile.instruction, description=profile.description)
        with AdminClient(AdminSettings(access.url, access.key)) as client:
            registered = client.register(
                Registration(tenant=profile.tenant, name=profile.name),
                archive(files, notes),
                archive_size(files, notes),
            )
            new = registered.outcome == "registered"
            if new and registered.live != registered.version.number:
                client.promote(profile.tenant, profile.name, str(registered.version.number))
    except (AdapterRefused, CommandError) as error:
        raise LocalRunError(f"the demo profile {profile.tenant}/{profile.name} was not registered: {error}") from error
    return new
