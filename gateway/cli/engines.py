"""
`tailor engines`: what stands behind the gateway and what it can take.
"""

import typer
from rich.filesize import decimal

from gateway.cli.client import AdminClient
from gateway.cli.options import AdminKey, AsJson, Url
from gateway.cli.output import plain, print_json, reports_errors, say
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
    for engine in engines:
        say(f"[bold]{plain(engine.endpoint)}[/]  {'ready' if engine.ready else '[red]does not answer[/]'}")
        for name, value in _facts(engine):
            say(f"  {name:<15} {plain(value)}")


def _facts(engine: EngineView) -> list[tuple[str, str]]:
    manifest = engine.manifest
    lora, table = manifest.lora, manifest.prompt_table
    adapters = "none"
    if lora:
        kinds = "LoRA and DoRA" if lora.dora else "LoRA"
        adapters = f"{kinds} up to rank {lora.max_rank}; {decimal(lora.cache_bytes)} of them held at once"
    return [
        ("address", engine.address),
        ("base", f"{manifest.base.name} ({manifest.base.architecture})"),
        ("engine", f"{manifest.engine.kind} {manifest.engine.version}, {manifest.dtype}"),
        ("context", f"{manifest.max_total_tokens} tokens, at most {manifest.max_input_tokens} of them prompt"),
        ("batch", f"{manifest.max_batch_size} answers at once"),
        ("adapters", adapters),
        ("virtual tokens", f"up to {table.max_rows}" if table else "none"),
        ("prompt reuse", f"blocks of {manifest.kv_reuse.tokens_per_block}" if manifest.kv_reuse.enabled else "off"),
    ]
