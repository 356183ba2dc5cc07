"""
The `tailor` command: its groups of commands in one list.

Decides nothing else. What only a server needs is not imported here, so that every command starts quickly.
"""

import typer

from gateway.cli import adapters, engines, keys, tenants
from gateway.cli.serve import serve
from gateway.cli.up import up

GROUPS: tuple[tuple[str, typer.Typer], ...] = (
    ("adapters", adapters.app),
    ("tenants", tenants.app),
    ("keys", keys.app),
    ("engines", engines.app),
)

app = typer.Typer(
    name="tailor",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Tailor: one base model, tuned for every tenant.",
)
app.command()(up)
app.command()(serve)
for _name, _group in GROUPS:
    app.add_typer(_group, name=_name)


if __name__ == "__main__":
    app()
