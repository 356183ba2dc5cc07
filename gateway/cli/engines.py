"""
`tailor engines`: what stands behind the gateway and what it can take.
"""

import typer
from rich.filesize import decimal

from gateway.cli.client import AdminClient
from gateway.cli.options import AdminKey, AsJson, Url
from gateway.cli.output import plain, print_json, print_table, reports_errors
from gateway.cli.settings import admin_settings
from gateway.domain.engine_view import EngineView

app = typer.Typer(no_args_is_help=True, help="Show the engines behind the gateway.")


@app.callback()
def _group() -> None:
    """Show the engines behind the gateway."""


@app.command("show")
@reports_errors
def show(url: Url = None, admin_key: AdminKey = None, as_json: AsJson = False) -> None:
    """Show every endpoint, whether it answers, and what its engine can take."""
    with AdminClient(admin_settings(url, admin_key)) as client:
        engines = client.engines()
    if as_json:
        print_json(engines)
        return
    print_table(
        ["NAME", "ADDRESS", "READY", "BASE", "ENGINE", "CONTEXT", "BATCH", "LORA", "VIRTUAL TOKENS"],
        [_row(engine) for engine in engines],
        right=("CONTEXT", "BATCH"),
    )


def _row(engine: EngineView) -> list[str]:
    manifest = engine.manifest
    lora, table = manifest.lora, manifest.prompt_table
    return [
        plain(engine.endpoint),
        plain(engine.address),
        "yes" if engine.ready else "[red]no[/]",
        plain(manifest.base.name),
        f"{plain(manifest.engine.kind)} {manifest.dtype}",
        str(manifest.max_total_tokens),
        str(manifest.max_batch_size),
        f"rank {lora.max_rank}{', DoRA' if lora.dora else ''}, {decimal(lora.cache_bytes)}" if lora else "no",
        f"up to {table.max_rows}" if table else "no",
    ]
