"""
Where a request goes, and where it goes next.
"""

import pytest

from gateway.domain.errors import AdapterCacheFull, BackendFailed, EngineFailed, EngineRefused, TargetUnavailable
from gateway.domain.failover import TargetsExhausted, attempts
from gateway.domain.job import Endpoint, Target
from gateway.domain.manifest import Base
from gateway.domain.routing import EndpointSnapshot, route
from tests.unit.domain.making import BASE, MANIFEST, TUNED, manifest


def snapshot(
    name: str, *, ready: bool = True, resident: bool = False, in_flight: int = 0, base: str = "tiny"
) -> EndpointSnapshot:
    other = Base(name=base, architecture="", checkpoint="", fingerprint="")
    engine = MANIFEST if base == "tiny" else manifest(base=other)
    return EndpointSnapshot(Endpoint(name, "127.0.0.1:1", engine), ready, in_flight, resident)


@pytest.mark.parametrize(
    ("snapshots", "order"),
    [
        pytest.param([], "", id="none where there is none"),
        pytest.param([snapshot("a", base="smollm2")], "", id="none of another base"),
        pytest.param([snapshot("a", base="smollm2"), snapshot("b")], "b", id="only those of the profile's base"),
        pytest.param([snapshot("a", in_flight=2), snapshot("b", in_flight=1)], "ba", id="the least busy first"),
        pytest.param([snapshot("a"), snapshot("b", resident=True, in_flight=9)], "ba", id="one that holds the adapter"),
        pytest.param(
            [snapshot("a", resident=True, ready=False), snapshot("b")], "ba", id="a ready one before one that holds it"
        ),
        pytest.param([snapshot("a", ready=False)], "a", id="one that is not ready is better than none"),
        pytest.param([snapshot("a"), snapshot("b"), snapshot("c")], "abc", id="as configured where all are alike"),
    ],
)
def test_the_order_of_targets(snapshots, order):
    assert "".join(target.endpoint.name for target in route(TUNED, snapshots)) == order


def test_the_rung_is_named():
    assert [target.rung for target in route(TUNED, [snapshot("a")])] == ["adapter"]
    assert [target.rung for target in route(BASE, [snapshot("a")])] == ["base"]


A, B = (Target(snapshot(name).endpoint) for name in "ab")


def test_a_failure_moves_on_to_the_next_target_and_all_are_kept():
    plan = attempts([A, B])
    first, second = TargetUnavailable("gone"), EngineFailed("broken")
    assert next(plan) is A
    assert plan.send(first) is B
    with pytest.raises(TargetsExhausted) as exhausted:
        plan.send(second)
    assert exhausted.value.failures == ((A, first), (B, second))
    assert exhausted.value.message == "broken"


def test_a_refusal_that_any_engine_would_give_ends_the_plan():
    plan = attempts([A, B])
    next(plan)
    refusal = EngineRefused("too long")
    with pytest.raises(EngineRefused) as raised:
        plan.send(refusal)
    assert raised.value is refusal


def test_no_target_at_all_is_a_failure_with_a_sentence():
    with pytest.raises(TargetsExhausted, match="no endpoint serves this model's base"):
        next(attempts([]))


@pytest.mark.parametrize("failure", [BackendFailed, TargetUnavailable, AdapterCacheFull, EngineFailed])
def test_other_failures_may_pass_elsewhere(failure):
    assert failure("").elsewhere
