"""
What a run found, as numbers: medians over rounds, their spread, and ratios within each round.

Decides how samples are added up. Does not print.
"""

import statistics
from collections.abc import Mapping, Sequence

import msgspec

from bench.callers.order import Tally
from bench.machine import Machine
from bench.measure import Sample
from bench.plan import Cell, Target, Unit


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """
    One target in one cell.

    `cpu_us`: processor microseconds of its processes for each unit, the median over rounds; `spread_percent`: half the
    distance between the quartiles, in per cent of it, None below three rounds. `to_nginx`, `to_tritonclient`: medians
    of each round's ratio. Indicative only, since they depend on whatever else runs: `first_ms_*`, to the first content
    (to the whole answer where it is not streamed), `per_second`, and `waited_percent`, how much of the time in which
    its processes had work no processor was free for them.
    """

    target: Target
    cpu_us: float
    spread_percent: float | None
    cpu_us_of_rounds: list[float]
    to_nginx: float | None
    to_tritonclient: float | None
    first_ms_p50: float
    first_ms_p99: float
    per_second: float
    waited_percent: float
    answers: int
    tokens: int
    errors: int
    failures: list[str]


class CellReport(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    title: str
    unit: Unit
    targets: list[Figures]


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """The most resident memory of one process since its start, shared pages included."""

    process: str
    peak_mib: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """
    A whole run. `foreign_cores`: how many processors work outside the run kept busy, the median over samples.
    `late_percent`: how many of the stand-ins' steps could not be made at their time.
    """

    date: str
    seed: int
    rounds: int
    quick: bool
    seconds: float
    machine: Machine
    nginx: bool
    cells: list[CellReport]
    memory: list[Memory]
    foreign_cores: float
    late_percent: float
    errors: int
    notes: list[str]


def cell_reports(samples: Sequence[Sample]) -> list[CellReport]:
    """One for each cell that was measured, in the order of the run."""
    cells: dict[str, Cell] = {}
    tallies: dict[str, dict[Target, list[Tally]]] = {}
    for sample in samples:
        cells[sample.cell.name] = sample.cell
        tallies.setdefault(sample.cell.name, {}).setdefault(sample.target, []).append(sample.tally)
    return [
        CellReport(
            name=name,
            title=cell.title,
            unit=cell.unit,
            targets=[_figures(cell.unit, target, tallies[name]) for target in tallies[name]],
        )
        for name, cell in cells.items()
    ]


def foreign_cores(samples: Sequence[Sample]) -> float:
    return statistics.median(sample.tally.foreign_ns / 1e9 / sample.tally.elapsed_s for sample in samples)


def _figures(unit: Unit, target: Target, of_targets: Mapping[Target, Sequence[Tally]]) -> Figures:
    tallies = of_targets[target]
    costs = [_cost_us(unit, tally) for tally in tallies]
    cost = statistics.median(costs)
    first_ms = sorted(1000 * seconds for tally in tallies for seconds in tally.first_s)
    ran, waited = sum(tally.ran_ns for tally in tallies), sum(tally.waited_ns for tally in tallies)

    def ratio(other: Target) -> float | None:
        if other not in of_targets:
            return None
        others = [_cost_us(unit, tally) for tally in of_targets[other]]
        # Only what was measured in the same round is compared.
        return statistics.median(mine / theirs for mine, theirs in zip(costs, others, strict=True) if theirs)

    return Figures(
        target=target,
        cpu_us=cost,
        spread_percent=_spread_percent(costs),
        cpu_us_of_rounds=costs,
        to_nginx=ratio(Target.NGINX),
        to_tritonclient=ratio(Target.TRITONCLIENT),
        first_ms_p50=_quantile(first_ms, 0.50),
        first_ms_p99=_quantile(first_ms, 0.99),
        per_second=statistics.median(_units(unit, tally) / tally.elapsed_s for tally in tallies),
        waited_percent=100 * waited / (ran + waited) if ran + waited else 0.0,
        answers=sum(tally.answers for tally in tallies),
        tokens=sum(tally.tokens for tally in tallies),
        errors=sum(tally.errors for tally in tallies),
        failures=[text for tally in tallies for text in tally.failures][:5],
    )


def _units(unit: Unit, tally: Tally) -> int:
    return tally.answers if unit is Unit.REQUEST else tally.tokens


def _cost_us(unit: Unit, tally: Tally) -> float:
    units = _units(unit, tally)
    return tally.ran_ns / 1000 / units if units else 0.0


def _spread_percent(values: Sequence[float]) -> float | None:
    if len(values) < 3:
        return None
    lower, middle, upper = statistics.quantiles(values, n=4, method="inclusive")
    return 100 * (upper - lower) / 2 / middle if middle else None


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
