"""
Figures are medians over rounds, and ratios are taken within a round before they are.
"""

import pytest

from bench.callers.order import Tally
from bench.measure import Sample
from bench.plan import CELLS, Target
from bench.report import cell_reports

_STREAMS = next(cell for cell in CELLS if cell.name == "streams")


def _sample(target: Target, number: int, us_per_token: float) -> Sample:
    tally = Tally(
        answers=2,
        tokens=100,
        errors=0,
        failures=(),
        first_s=(0.001, 0.003),
        elapsed_s=0.5,
        ran_ns=int(us_per_token * 1000 * 100),
        waited_ns=0,
        foreign_ns=0,
    )
    return Sample(_STREAMS, target, number, tally)


def test_a_slow_round_of_the_machine_changes_no_ratio() -> None:
    samples = [
        _sample(target, number, cost * slowness)
        for number, slowness in enumerate((1, 5, 1))
        for target, cost in ((Target.GATEWAY, 60), (Target.NGINX, 10), (Target.TRITONCLIENT, 30))
    ]
    (cell,) = cell_reports(samples)
    gateway, nginx, client = cell.targets
    assert (gateway.cpu_us, nginx.cpu_us, client.cpu_us) == (60, 10, 30)
    assert (gateway.to_nginx, gateway.to_tritonclient, nginx.to_nginx) == (6, 2, 1)
    assert gateway.cpu_us_of_rounds == [60, 300, 60]
    assert gateway.per_second == 200


def test_a_target_that_is_not_there_is_no_ratio() -> None:
    (cell,) = cell_reports([_sample(Target.GATEWAY, 0, 60)])
    assert cell.targets[0].to_nginx is None
    assert cell.targets[0].spread_percent is None


def test_spread_is_half_the_distance_of_the_quartiles() -> None:
    (cell,) = cell_reports([_sample(Target.GATEWAY, n, cost) for n, cost in enumerate((90, 100, 110, 100, 100))])
    assert cell.targets[0].spread_percent == pytest.approx(0.0)
    (cell,) = cell_reports([_sample(Target.GATEWAY, n, cost) for n, cost in enumerate((80, 90, 100, 110, 120))])
    assert cell.targets[0].spread_percent == pytest.approx(10.0)
