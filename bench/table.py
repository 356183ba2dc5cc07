"""
A report for a person at a terminal.

Decides words and layout only.
"""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bench.plan import Target
from bench.report import CellReport, Figures, Report

_NAMES = {
    Target.GATEWAY: "gateway",
    Target.NGINX: "nginx",
    Target.TRITONCLIENT: "tritonclient",
    Target.TRANSPORT: "our transport",
}


def print_report(console: Console, report: Report) -> None:
    """Cells, memory, and what the figures depend on."""
    for cell in report.cells:
        console.print(f"\n[bold cyan]{cell.name}[/]  {escape(cell.title)}", highlight=False)
        console.print(_table(cell))
    console.print(_memory(report))
    for line in _reading(report):
        console.print(line, style="dim", markup=False, highlight=False)
    for cell in report.cells:
        for figures in cell.targets:
            for failure in figures.failures:
                console.print(f"{cell.name}, {figures.target}: {failure}", style="red", markup=False, highlight=False)


def _table(cell: CellReport) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("", no_wrap=True, min_width=14)
    # The same widths in every cell, so that columns stand below each other, and all of them within 80 characters.
    headings = (f"µs/{cell.unit}", "±", "÷ nginx", "÷ client", "p50/p99 ms", "per s", "errors")
    for heading, width in zip(headings, (10, 4, 7, 8, 11, 6, 6), strict=True):
        table.add_column(heading, justify="right", no_wrap=True, min_width=width)
    for figures in cell.targets:
        table.add_row(*_row(figures), style="bold" if figures.target is Target.GATEWAY else None)
    return table


def _row(figures: Figures) -> list[Text | str]:
    return [
        _NAMES[figures.target],
        _number(figures.cpu_us),
        "" if figures.spread_percent is None else f"{figures.spread_percent:.0f} %",
        _ratio(figures.to_nginx),
        _ratio(figures.to_tritonclient),
        f"{_number(figures.first_ms_p50)}/{_number(figures.first_ms_p99)}",
        f"{figures.per_second:,.0f}",
        Text(str(figures.errors), style="bold red" if figures.errors else "green"),
    ]


def _memory(report: Report) -> Text:
    text = Text("\npeak memory, MiB  ", style="bold cyan")
    for item in report.memory:
        text.append(f"{item.process} ", style="not bold dim").append(
            f"{item.peak_mib:.0f}   ", style="not bold default"
        )
    return text.append("\n")


def _reading(report: Report) -> list[str]:
    machine = report.machine
    build = "an optimised build" if machine.optimised_python else "a plain build; an optimised one costs less"
    return [
        "µs: processor time of the target's own processes, upstream and callers apart, the median of its rounds; ± is "
        "half the distance of their quartiles. A token carries its share of the request. ÷: to nginx, and to a direct "
        "client on tritonclient, in the same round; only ratios of one run can be compared. Milliseconds (to the first "
        "content, or to the whole plain answer) and rates are indicative only.",
        f"{machine.cores} cores, {machine.memory_gib:.0f} GiB, Linux {machine.kernel}, Python {machine.python} "
        f"({build}). {report.rounds} rounds, seed {report.seed}, {report.seconds:.0f} s. Other work kept "
        f"{report.foreign_cores:.1f} cores busy; {report.late_percent:.1f} % of the stand-ins' steps came late.",
        *report.notes,
    ]


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} ×" if value < 10 else f"{value:.0f} ×"
