"""
What a person sees when a local run is ready: what runs where, which profiles there are, three things to paste.

Decides words and layout only.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.local.bases import LocalBase
from gateway.local.demo import DemoProfile


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """One line of the first table."""

    name: str
    address: str
    pid: int
    log: Path


def print_summary(
    console: Console,
    *,
    base: LocalBase,
    services: Sequence[ServiceRow],
    profiles: Sequence[DemoProfile],
    env: Path,
    ready_s: float,
    resident: int,
) -> None:
    """Print it; `resident` is in bytes. Lines to paste are never wrapped."""
    console.print()
    console.print(
        f"[bold]Tailor serves {base.model}[/] [dim]ready in {ready_s:.0f} s, {resident / 2**20:,.0f} MiB of memory[/]",
        highlight=False,
    )
    console.print(_services(services))
    if profiles:
        console.print(_profiles(base, profiles))
    console.print("[bold]Try it[/] [dim]in another terminal, in this folder[/]\n", highlight=False)
    for line in _paste(base, profiles, _short(env)):
        console.print(f"  {escape(line)}", soft_wrap=True, highlight=False, style="cyan" if line else None)
    console.print("\n[dim]Ctrl-C stops everything.[/]")


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, header_style="dim", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _services(services: Sequence[ServiceRow]) -> Table:
    table = _table("service", "address", "pid", "log")
    for row in services:
        table.add_row(row.name, row.address, str(row.pid), _short(row.log))
    return table


def _profiles(base: LocalBase, profiles: Sequence[DemoProfile]) -> Table:
    table = _table("tenant", "model", "what it does")
    for profile in profiles:
        table.add_row(profile.tenant, profile.name, escape(profile.description))
    table.add_row("both", base.model, "The base itself, untuned.")
    return table


def _paste(base: LocalBase, profiles: Sequence[DemoProfile], env: str) -> list[str]:
    """A shell that knows the run, curl, Python, and the command line."""
    mine = next((profile for profile in profiles if profile.tenant == "acme"), None)
    model, prompt = (mine.name, mine.example.prompt) if mine else (base.model, base.question)
    body = f'{{"model": "{base.model}", "messages": [{{"role": "user", "content": "{base.question}"}}]}}'
    python = (
        f"from openai import OpenAI; print(OpenAI().chat.completions.create(model={model!r}, temperature=0, "
        f'messages=[{{"role": "user", "content": {prompt!r}}}]).choices[0].message.content)'
    )
    return [
        f"source {env}",
        "",
        'curl $OPENAI_BASE_URL/chat/completions -H "Authorization: Bearer $OPENAI_API_KEY" \\',
        f"  -H 'Content-Type: application/json' -d {_single_quoted(body)}",
        "",
        f".venv/bin/python -c {_single_quoted(python)}",
        "",
        ".venv/bin/tailor adapters list",
    ]


def _single_quoted(text: str) -> str:
    quoted = text.replace("'", "'\\''")
    return f"'{quoted}'"


def _short(path: Path) -> str:
    """Relative to where the person stands, if below."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
