"""How many threads the arithmetic gets."""

import os
from pathlib import Path

import pytest

from gateway.local.threads import processors


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("max 100000", None, id="no quota leaves the affinity"),
        pytest.param("100000 100000", 1, id="a quota of one processor"),
        pytest.param("50000 100000", 1, id="half a processor counts as one"),
        pytest.param("99900000 100000", None, id="a quota above the affinity changes nothing"),
        pytest.param("nonsense", None, id="what cannot be read changes nothing"),
    ],
)
def test_a_containers_quota_counts(tmp_path: Path, text: str, expected: int | None) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text(text)

    assert processors(quota) == expected or (expected is None and processors(quota) == len(os.sched_getaffinity(0)))


def test_without_a_quota_file_the_affinity_counts(tmp_path: Path) -> None:
    assert processors(tmp_path / "absent") == len(os.sched_getaffinity(0))
