"""
`python -m bench`: what the gateway costs per request and per token, beside nginx and a direct connection to Triton.

Decides options, where output goes and the exit status: 0, 1 where an answer was wrong or the run could not go on, 130
where it was stopped.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.cpu import peak_bytes
from bench.machine import machine
from bench.measure import Sample, calls, measure
from bench.plan import CELLS, QUICK_ROUNDS, ROUNDS, Cell, Target, quick
from bench.report import Memory, Report, cell_reports, foreign_cores
from bench.stack import Stack, running
from bench.table import print_report
from gateway.local.errors import LocalRunError, ServiceDied, StopAsked

_NO_NGINX = "nginx is not on this machine, so its column is missing; install it (Debian: apt-get install nginx-light)."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=True)
    cells = [quick(cell) if options.quick else cell for cell in CELLS if not options.only or cell.name in options.only]
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    folder = Path(tempfile.mkdtemp(prefix="tailor-bench-"))
    try:
        report = _run(cells, rounds, options.seed, options.quick, folder, console)
    except StopAsked as asked:
        console.print(f"[dim]stopped ({asked}); everything it started has ended[/]", highlight=False)
        shutil.rmtree(folder, ignore_errors=True)
        return 130
    except LocalRunError as error:
        if isinstance(error, ServiceDied):
            console.print(error.tail, style="dim", markup=False, highlight=False)
        console.print(f"bench: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        console.print(f"Its logs are kept in {folder}", markup=False, highlight=False, soft_wrap=True)
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(report)).decode() + "\n")
    else:
        print_report(Console(), report)
    return 1 if report.errors else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[1] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one short round: does it all work?")
    parser.add_argument("--rounds", type=_positive, metavar="N", help=f"rounds to measure ({ROUNDS})")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="CELL",
        choices=[cell.name for cell in CELLS],
        help="some cells only: " + ", ".join(cell.name for cell in CELLS),
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of prompts and answers (1)")
    parser.add_argument("--json", action="store_true", help="the report as JSON on stdout; progress on stderr")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _run(cells: Sequence[Cell], rounds: int, seed: int, is_quick: bool, folder: Path, console: Console) -> Report:
    began, where = time.monotonic(), machine()
    with running(folder, seed, console) as stack:
        samples = _measured(stack, cells, rounds, seed, console)
        reports = cell_reports(samples)
        return Report(
            date=datetime.now(UTC).date().isoformat(),
            seed=seed,
            rounds=rounds,
            quick=is_quick,
            seconds=round(time.monotonic() - began, 1),
            machine=where,
            nginx=stack.has(Target.NGINX),
            cells=reports,
            memory=_memory(stack),
            foreign_cores=round(foreign_cores(samples), 2),
            late_percent=round(stack.late_percent(), 2),
            errors=sum(figures.errors for report in reports for figures in report.targets),
            notes=[] if stack.has(Target.NGINX) else [_NO_NGINX],
        )


def _measured(stack: Stack, cells: Sequence[Cell], rounds: int, seed: int, console: Console) -> list[Sample]:
    columns = (BarColumn(bar_width=30), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=calls(stack, cells, rounds))

        def progress(text: str) -> None:
            bar.update(task, description=text, completed=told[0])
            told[0] += 1

        told = [0]
        return measure(stack, cells, rounds, seed, progress)


def _memory(stack: Stack) -> list[Memory]:
    worker, *others = stack.processes("gateway")
    named = [("gateway worker", (worker,)), ("gateway control", tuple(others))]
    if stack.has(Target.NGINX):
        named.append(("nginx", stack.processes("nginx")))
    named += [
        (f"direct: {kind.value}", stack.processes(kind.value)) for kind in (Target.TRITONCLIENT, Target.TRANSPORT)
    ]
    return [Memory(process=name, peak_mib=round(sum(map(peak_bytes, pids)) / 2**20, 1)) for name, pids in named]


if __name__ == "__main__":
    sys.exit(main())
