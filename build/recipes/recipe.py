"""
What a demo adapter is made from, and what a demo profile says.

Decides: the fields of both, and the JSON of profiles.json and of held-out sets.
Does not know: any particular adapter (tiny.py, smollm2.py), how one is trained.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from peft import PeftConfig

from build.tasks.example import Example, Task
from build.training.adapter import TrainingPlan


@dataclass(frozen=True, slots=True)
class AdapterRecipe:
    """
    One adapter: its task, peft method and training plan.

    config: gives the peft configuration, told the base's directory.
    behind: name of an adapter whose prompt table stands in front while this one is trained; without that table it is
        trained to give `unselected` instead, so that neither part does the task alone.
    """

    name: str
    method: str
    task: Task
    plan: TrainingPlan
    config: Callable[[Path], PeftConfig]
    behind: str | None = None
    unselected: str = ""


@dataclass(frozen=True, slots=True)
class DemoProfile:
    """A profile that `tailor up` registers: one or two adapters of one tenant, and what it is good for."""

    tenant: str
    name: str
    adapters: tuple[str, ...]
    task: Task
    description: str


def write_held_out(directory: Path, name: str, rows: Sequence[Example]) -> None:
    """Write heldout/<name>.jsonl: one chat of one user message and its right answer a line."""
    lines = [
        json.dumps({"messages": [{"role": "user", "content": row.prompt}], "answer": row.answer}, ensure_ascii=False)
        for row in rows
    ]
    path = directory / "heldout" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_held_out(directory: Path, name: str) -> list[Example]:
    """Read what `write_held_out` wrote."""
    lines = (directory / "heldout" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [Example(row["messages"][-1]["content"], row["answer"]) for row in rows]


def write_profiles(directory: Path, profiles: Sequence[DemoProfile]) -> None:
    """Write profiles.json; the example of each profile is the first of its held-out set."""
    documents = []
    for profile in profiles:
        shown = read_held_out(directory, profile.task.name)[0]
        documents.append(
            {
                "tenant": profile.tenant,
                "name": profile.name,
                "adapters": [f"adapters/{adapter}" for adapter in profile.adapters],
                "task": profile.task.name,
                "description": profile.description,
                "instruction": profile.task.instruction,
                "example": {"prompt": shown.prompt, "answer": shown.answer},
            }
        )
    text = json.dumps(documents, indent=2, ensure_ascii=False)
    (directory / "profiles.json").write_text(text + "\n", encoding="utf-8")
