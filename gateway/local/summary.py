"""
What is said when a local run is ready: to a person what runs where, which profiles there are and three things to paste;
to a program one JSON line.

Decides words and layout only.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gateway.local.config_file import Addresses
from gateway.local.demo import DemoProfile


class RunningService(msgspec.Struct, frozen=True, kw_only=True):
    """One process of the stack; `log` is a path."""

    name: str
    address: str
    pid: int
    log: str


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """A run that answers. `base` as callers name it; paths are absolute; no key is in here, they are in `env`."""

    base: str
    run_directory: str
    env: str
    addresses: Addresses
    services: Sequence[RunningService]
    profiles: Sequence[DemoProfile]
    ready_s: float
    resident_bytes: int


def print_ready(ready: Ready) -> None:
    """One line of JSON on stdout."""
    sys.stdout.write(msgspec.json.encode(ready).decode() + "\n")
    sys.stdout.flush()


def read_ready(path: Path) -> Ready:
    """
    What a run in another process wrote into its directory.

    Raises:
        OSError: there is none.
        msgspec.MsgspecError: another version wrote it.
    """
    return msgspec.json.decode(path.read_bytes(), type=Ready)


def print_summary(console: Console, ready: Ready, *, question: str) -> None:
    """The same for a person; `question`: what may be asked of the base. Lines to paste are never wrapped."""
    took = f"ready in {ready.ready_s:.0f} s, {ready.resident_bytes / 2**20:,.0f} MiB of memory"
    console.print(f"\n[bold]Tailor serves {ready.base}[/] [dim]{took}[/]", highlight=False)
    console.print(_services(ready.services))
    console.print(_profiles(ready))
    console.print("[bold]Try it[/] [dim]in another terminal, in this folder[/]\n", highlight=False)
    for line in _paste(ready, question):
        console.print(Text(line, style="cyan"), soft_wrap=True)
    console.print("\n[dim]Ctrl-C stops everything.[/]")


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, header_style="dim", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _services(services: Sequence[RunningService]) -> Table:
    table = _table("service", "address", "pid", "log")
    for row in services:
        table.add_row(row.name, row.address, str(row.pid), _short(row.log))
    return table


def _profiles(ready: Ready) -> Table:
    table = _table("tenant", "model", "what it does")
    for profile in ready.profiles:
        table.add_row(profile.tenant, profile.name, escape(profile.description))
    table.add_row("both", ready.base, "The base itself, untuned.")
    return table


def _paste(ready: Ready, question: str) -> list[str]:
    """A shell that knows the run, then curl, Python and the command line; nothing is indented, or Python would mind."""
    mine = next((profile for profile in ready.profiles if profile.tenant == "acme"), None)
    model, prompt = (mine.name, mine.example.prompt) if mine else (ready.base, question)
    return [
        f"source {_short(ready.env)}",
        "",
        'curl $OPENAI_BASE_URL/chat/completions -H "Authorization: Bearer $OPENAI_API_KEY" \\',
        "-H 'Content-Type: application/json' -d @- <<'END'",
        f'{{"model": {_quoted(ready.base)}, "messages": [{{"role": "user", "content": {_quoted(question)}}}]}}',
        "END",
        "",
        ".venv/bin/python - <<'END'",
        "from openai import OpenAI",
        f'messages = [{{"role": "user", "content": {_quoted(prompt)}}}]',
        f"answer = OpenAI().chat.completions.create(model={_quoted(model)}, temperature=0, messages=messages)",
        "print(answer.choices[0].message.content)",
        "END",
        "",
        f".venv/bin/tailor adapters show acme/{mine.name}" if mine else ".venv/bin/tailor adapters list",
    ]


def _quoted(text: str) -> str:
    """A string that JSON and Python both read as this text."""
    return msgspec.json.encode(text).decode()


def _short(path: str) -> str:
    """Relative to where the person stands, if below."""
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else path
