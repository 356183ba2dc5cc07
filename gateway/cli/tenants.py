"""
`tailor tenants`: who may use this gateway. Tenants are made in tailor.yaml; this only shows them.
"""

import typer

from gateway.cli.client import AdminClient
from gateway.cli.options import AdminKey, AsJson, Url
from gateway.cli.output import plain, print_json, print_table, reports_errors, say
from gateway.cli.settings import admin_settings

app = typer.Typer(no_args_is_help=True, help="Show tenants; they are made in tailor.yaml.")


@app.callback()
def _group() -> None:
    """Show tenants; they are made in tailor.yaml."""


@app.command("list")
@reports_errors
def list_tenants(url: Url = None, admin_key: AdminKey = None, as_json: AsJson = False) -> None:
    """List tenants, the bases they may call bare, and how many profiles they have."""
    with AdminClient(admin_settings(url, admin_key)) as client:
        tenants = client.tenants()
    if as_json:
        print_json(tenants)
    elif not tenants:
        say("No tenants yet. Add one under [bold]tenants:[/] in tailor.yaml.")
    else:
        print_table(
            ["TENANT", "PROFILES", "BASES"],
            [[plain(item.name), str(item.profiles), plain(", ".join(item.bases) or "-")] for item in tenants],
            right=("PROFILES",),
        )
