"""
How build commands show their progress and results.

Decides: the progress bar's columns and the score table's.
Does not know: what is being built.
"""

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from build.scoring.exact import AdapterScores


def progress_bar(console: Console) -> Progress:
    """A bar with description, count, a note (the field `note`), time gone and time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def kilobytes(size: int) -> str:
    """A file's size, in units of 1,000 bytes."""
    return f"{size / 1000:,.0f} kB"


def score_table(title: str, rows: Sequence[AdapterScores]) -> Table:
    """The table of scores: exact matches on held-out prompts, base beside adapter."""
    # One wide column and short numbers: it has to fit into 80 columns.
    table = Table(title=title, show_lines=True)
    table.add_column("adapter, held-out set, method", overflow="fold")
    for heading in ("trained", "file", "base,\nbare", "base,\ninstr.", "adapter,\nbare"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            f"{row.name}\n{row.held_out_set}\n{row.method}",
            f"{row.trainable_parameters:,}",
            kilobytes(row.file_bytes),
            str(row.base_bare),
            str(row.base_instructed),
            str(row.adapted),
        )
    return table


def markdown_table(rows: Sequence[AdapterScores]) -> str:
    """The same table in Markdown, as docs/models.md has it; a test holds the two together."""
    lines = [
        "| adapter | held-out set | method | trained | file | base, bare | base + instruction | adapter, bare |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.name} | {row.held_out_set} | {row.method} | {row.trainable_parameters:,} | {kilobytes(row.file_bytes)}"
        f" | {row.base_bare} | {row.base_instructed} | {row.adapted} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"
