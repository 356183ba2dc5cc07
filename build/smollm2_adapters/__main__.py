"""
`python -m build.smollm2_adapters`: train SmolLM2's demo adapters, score them, and write what is committed of them.

Decides: the order of the steps, where artefacts go, and that each adapter is finished (weights, scores, card) before
the next begins, so that an interruption costs one.
Does not know: the recipes (build/recipes/smollm2.py), how the base is made (build/smollm2_base).
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import TaskID
from transformers.utils import logging

from build.console import progress_bar, score_table
from build.recipes.recipe import AdapterRecipe, read_held_out, write_held_out, write_profiles
from build.recipes.smollm2 import ADAPTERS, HELD_OUT, PROFILES
from build.scoring.adapters import Judge
from build.scoring.exact import AdapterScores, read_scores, write_scores
from build.smollm2_adapters.card import model_card
from build.smollm2_base.prepare import BASE_NAME, DIRECTORY, is_complete
from build.tasks.example import Side, examples
from build.training.demo import train_recipe, trained_before

ARTEFACTS = Path(__file__).parents[1] / "smollm2"
SIDES = (Side.HELD_OUT, Side.NEW_PHRASINGS)


def held_out_name(recipe: AdapterRecipe, side: Side) -> str:
    """The name of a held-out set: the task's, with a suffix for the set of new phrasings."""
    return recipe.task.name if side is Side.HELD_OUT else f"{recipe.task.name}-{side.value}"


def write_sets(output: Path) -> None:
    """Write both held-out sets of every task."""
    for recipe in ADAPTERS:
        for side in SIDES:
            rows = examples(recipe.task, HELD_OUT, seed=1, side=side)
            write_held_out(output, held_out_name(recipe, side), rows)


def train_adapter(recipe: AdapterRecipe, output: Path, *, console: Console) -> None:
    """Train one adapter and write its directory."""
    with progress_bar(console) as bar:
        training = bar.add_task(f"{recipe.name}: training", total=recipe.plan.steps, note="")

        def on_step(step: int, loss: float, line: TaskID = training) -> None:
            bar.update(line, completed=step, note=f"loss {loss:.3f}")
            if not console.is_terminal and step % 10 == 0:
                console.print(f"{recipe.name}: step {step} of {recipe.plan.steps}, loss {loss:.3f}")

        train_recipe(
            recipe,
            base_directory=DIRECTORY,
            base_name=BASE_NAME,
            output=output / "adapters",
            dtype=torch.float16,
            on_step=on_step,
        )


def score_adapter(recipe: AdapterRecipe, output: Path, *, console: Console) -> list[AdapterScores]:
    """Score one adapter that is on disk beside its base, and write its model card."""
    trained = trained_before(output / "adapters" / recipe.name)
    judge = Judge(DIRECTORY, output / "adapters")
    scores = []
    with progress_bar(console) as bar:
        # Base bare, base instructed, adapter.
        line = bar.add_task(f"{recipe.name}: scoring", total=3 * HELD_OUT * len(SIDES), note="")
        for side in SIDES:
            name = held_out_name(recipe, side)
            rows = read_held_out(output, name)
            scores += judge.score(
                recipe, trained, rows, set_name=name, on_answer=lambda count: bar.advance(line, count)
            )
    card = model_card(
        recipe,
        scores,
        read_held_out(output, recipe.task.name)[0],
        held_out=HELD_OUT,
        generator=f"{recipe.task.draw.__module__}",
    )
    (output / "adapters" / recipe.name / "README.md").write_text(card, encoding="utf-8")
    return scores


def main(
    output: Annotated[Path, typer.Option(help="Directory for adapters, profiles and held-out sets.")] = ARTEFACTS,
    only: Annotated[str, typer.Option(help="Train this adapter alone.")] = "",
    score_only: Annotated[bool, typer.Option(help="Score the adapters that are there, without training.")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads; one where other work runs beside this.")] = 2,
) -> None:
    """Train the demo adapters of SmolLM2 (20 minutes or more on two idle cores)."""
    logging.disable_progress_bar()
    torch.set_num_threads(threads)
    console = Console()
    names = [recipe.name for recipe in ADAPTERS]
    if only and only not in names:
        raise typer.BadParameter(f"{only!r} is not one of {', '.join(names)}", param_hint="--only")
    if not is_complete(DIRECTORY):
        console.print("SmolLM2 is not converted yet. Run `python -m build.smollm2_base` first; it takes seconds.")
        raise typer.Exit(1)
    write_sets(output)
    rows = read_scores(output / "scores.json")
    for recipe in ADAPTERS:
        if only in ("", recipe.name):
            if not score_only:
                train_adapter(recipe, output, console=console)
            scores = score_adapter(recipe, output, console=console)
            rows = [row for row in rows if row.name != recipe.name] + scores
            rows.sort(key=lambda row: names.index(row.name))
            write_scores(output / "scores.json", rows)
            console.print(score_table(f"SmolLM2: exact match on {HELD_OUT} held-out prompts a set", rows))
    write_profiles(output, PROFILES)


if __name__ == "__main__":
    typer.run(main)
