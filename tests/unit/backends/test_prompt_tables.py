"""
Prompt tables in memory: read once, bounded in bytes, and never of another size than the engine expects.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.backends.prompt_tables import PromptTables
from gateway.domain.adapter import PromptTable
from gateway.domain.errors import TargetUnavailable
from tests.unit.domain.making import PROMPT

SIZE = 2 * 128 * 4
OVERHEAD = 64  # the bytes of the fragment's other contents, at most


def table(folder: Path, extra_id: int, *, size: int = SIZE) -> PromptTable:
    path = folder / f"{extra_id}.bin"
    path.write_bytes(bytes([extra_id]) * size)
    return replace(PROMPT, extra_id=extra_id, table=path)


def in_memory(tables: PromptTables, prompts: list[PromptTable]) -> list[int]:
    """Which of these are answered without their files."""
    kept = []
    for prompt in prompts:
        prompt.table.unlink()
    for prompt in prompts:
        try:
            tables.get(prompt, 908)
        except TargetUnavailable:
            continue
        kept.append(prompt.extra_id)
    return kept


def test_a_table_is_read_once(tmp_path):
    tables, prompt = PromptTables(10 * SIZE), table(tmp_path, 1)
    first = tables.get(prompt, 908)
    prompt.table.unlink()
    assert tables.get(prompt, 908) is first
    assert first.rows == 2
    assert first.extra_id == 1


def test_the_least_recently_used_ones_go_when_the_bound_is_passed(tmp_path):
    tables = PromptTables(3 * (SIZE + OVERHEAD))
    prompts = [table(tmp_path, number) for number in range(1, 5)]
    for number in (0, 1, 2, 0, 3):
        tables.get(prompts[number], 908)
    assert in_memory(tables, prompts) == [1, 3, 4]


def test_the_bound_holds_over_many_tables(tmp_path):
    tables = PromptTables(5 * (SIZE + OVERHEAD))
    prompts = [table(tmp_path, number) for number in range(1, 101)]
    for prompt in prompts * 2:
        tables.get(prompt, 908)
    assert len(in_memory(tables, prompts)) == 5


def test_one_table_over_the_bound_is_still_served(tmp_path):
    tables = PromptTables(10)
    assert tables.get(table(tmp_path, 1), 908).extra_id == 1


def test_ids_depend_on_the_engines_vocabulary(tmp_path):
    tables, prompt = PromptTables(10 * SIZE), table(tmp_path, 1)
    assert tables.get(prompt, 908).ids != tables.get(prompt, 910).ids


@pytest.mark.parametrize("size", [0, SIZE - 1, SIZE + 1], ids=["empty", "a byte short", "a byte too long"])
def test_a_table_of_another_size_never_reaches_an_engine(tmp_path, size):
    with pytest.raises(TargetUnavailable, match=f"has {size} bytes; {SIZE}"):
        PromptTables(10 * SIZE).get(table(tmp_path, 1, size=size), 908)


def test_a_missing_file_is_a_failure_with_its_name(tmp_path):
    with pytest.raises(TargetUnavailable, match="cannot be read"):
        PromptTables(10 * SIZE).get(replace(PROMPT, table=tmp_path / "gone.bin"), 908)
