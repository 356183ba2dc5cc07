"""
How the command line speaks: tables for people on stdout, JSON for programs, progress and errors on stderr.

Decides colours, exit codes and the shape of an error. Does not know what is being said.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import wraps
from typing import Any, NoReturn, ParamSpec, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

P = ParamSpec("P")
R = TypeVar("R")


class Exit(IntEnum):
    """Exit codes; 2 is also what a misspelt option gives."""

    REFUSED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_FOUND = 4


class CommandError(Exception):
    """A failure in one or two sentences that say what to do next. `code`, `details`: for --json."""

    def __init__(
        self, message: str, exit_code: Exit = Exit.REFUSED, *, code: str = "", details: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.code = code or exit_code.name.lower()
        self.details = details


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def print_table(columns: list[str], rows: list[list[str]], *, right: tuple[str, ...] = ()) -> None:
    """A table as wide as the terminal, without boxes that would break copying. `right`: columns of numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", no_wrap=column == "NAME")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False).print(table)


def say(text: str = "") -> None:
    """A line for people; `[bold]…[/]` and the like are styles."""
    Console(highlight=False, soft_wrap=True).print(text)


def plain(text: str) -> str:
    """Text of others, safe inside `say` and tables."""
    return escape("".join(character if character.isprintable() else " " for character in text))


def reports_errors(command: Callable[P, R]) -> Callable[P, R]:
    """A command whose CommandErrors become a sentence, or JSON where it has `as_json`, and an exit code."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except CommandError as error:
            _fail(error, as_json=bool(kwargs.get("as_json")))

    return run


def _fail(error: CommandError, *, as_json: bool) -> NoReturn:
    if as_json:
        print_json({"error": {"message": error.message, "code": error.code, "details": error.details}})
    else:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(f"[bold red]error:[/] {plain(error.message)}")
    raise typer.Exit(int(error.exit_code))


@contextmanager
def upload_progress(total: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """
    A bar while bytes leave, then a spinner while the other side converts, on stderr and only for a terminal.

    Gives the function to call with each piece's length.
    """
    console = Console(stderr=True)
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    )
    with progress:
        task: Any = progress.add_task("uploading", total=total)
        sent = 0

        def advance(nbytes: int) -> None:
            nonlocal sent
            sent += nbytes
            progress.update(task, completed=sent)
            if sent >= total:
                progress.update(task, description="converting", total=None)

        yield advance
