"""
`make bench` works here: every target of every cell answers, whole and without an error. No figure is judged.
"""

import subprocess
import sys

import msgspec

from bench.nginx import find
from bench.plan import CELLS, QUICK_ROUNDS, Target, quick
from bench.report import Report
from gateway.local.layout import REPOSITORY


def test_a_quick_run_answers_everything_and_reports_all_of_it() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", "--json"],
        cwd=REPOSITORY,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr.decode()
    report = msgspec.json.decode(run.stdout, type=Report)
    assert report.errors == 0
    assert report.nginx == (find() is not None)
    assert [cell.name for cell in report.cells] == [cell.name for cell in CELLS]
    for planned, cell in zip(map(quick, CELLS), report.cells, strict=True):
        there = [target for target in planned.targets if target is not Target.NGINX or report.nginx]
        assert [figures.target for figures in cell.targets] == there
        for figures in cell.targets:
            assert figures.failures == []
            assert figures.answers == planned.requests * QUICK_ROUNDS
            assert figures.tokens == figures.answers * planned.tokens
            assert figures.cpu_us > 0
    assert all(memory.peak_mib > 0 for memory in report.memory)
