"""
`python -m build.tiny_base`: train the tiny base and its demo adapters, and print how they score.

Decides: the order of the steps and where artefacts go.
Does not know: the recipes (build/tiny_base/pretrain.py, build/recipes/tiny.py).
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import TaskID
from transformers.utils import logging

from build.console import progress_bar, score_table
from build.recipes.recipe import read_held_out, write_held_out, write_profiles
from build.recipes.tiny import ADAPTERS, HELD_OUT, PROFILES
from build.scoring.adapters import Judge
from build.scoring.exact import AdapterScores, write_scores
from build.tasks.example import Side, examples
from build.tiny_base.pretrain import PretrainingPlan, pretrain, write_base
from build.tiny_base.tokenizer import train_tokenizer
from build.training.demo import TrainedAdapter, train_recipe

ARTEFACTS = Path(__file__).parents[1] / "tiny"
BASE_NAME = "tiny"


def train_base(output: Path, *, seed: int, console: Console) -> None:
    """Train tokenizer and model and write the Hugging Face directory."""
    tokenizer = train_tokenizer(seed)
    plan = PretrainingPlan()
    with progress_bar(console) as bar:
        line = bar.add_task("tiny: copying, then tasks", total=plan.steps, note="")

        def on_step(step: int, loss: float) -> None:
            bar.update(line, completed=step, note=f"loss {loss:.3f}")

        model = pretrain(tokenizer, plan, seed=seed, on_step=on_step)
    write_base(model, tokenizer, output)


def train_adapters(output: Path, *, console: Console) -> dict[str, TrainedAdapter]:
    """Train every adapter of the recipe; what was trained, by name."""
    trained = {}
    with progress_bar(console) as bar:
        for recipe in ADAPTERS:
            line = bar.add_task(recipe.name, total=recipe.plan.steps, note="")

            def on_step(step: int, loss: float, line: TaskID = line) -> None:
                bar.update(line, completed=step, note=f"loss {loss:.3f}")

            trained[recipe.name] = train_recipe(
                recipe,
                base_directory=output,
                base_name=BASE_NAME,
                output=output / "adapters",
                dtype=torch.float32,
                on_step=on_step,
            )
    return trained


def score_adapters(output: Path, trained: dict[str, TrainedAdapter], *, console: Console) -> list[AdapterScores]:
    """Score every adapter beside its base."""
    judge = Judge(output, output / "adapters")
    scores = []
    with progress_bar(console) as bar:
        line = bar.add_task("scoring", total=len(ADAPTERS), note="")
        for recipe in ADAPTERS:
            bar.update(line, note=recipe.name)
            rows = read_held_out(output, recipe.task.name)
            scores += judge.score(recipe, trained[recipe.name], rows, set_name=recipe.task.name)
            bar.advance(line)
    return scores


def main(
    output: Annotated[Path, typer.Option(help="Directory for the base, its adapters and held-out sets.")] = ARTEFACTS,
    seed: Annotated[int, typer.Option(help="Seed of tokenizer, weights and batches.")] = 7,
    threads: Annotated[int, typer.Option(help="CPU threads; one where other work runs beside this.")] = 2,
    keep_base: Annotated[bool, typer.Option(help="Train adapters for the base that is in the directory.")] = False,
) -> None:
    """Train the tiny base from scratch (about three minutes on two idle cores) and its adapters (seconds each)."""
    logging.disable_progress_bar()
    torch.set_num_threads(threads)
    console = Console()
    if not keep_base:
        train_base(output, seed=seed, console=console)
    for recipe in ADAPTERS:
        write_held_out(output, recipe.task.name, examples(recipe.task, HELD_OUT, seed=1, side=Side.HELD_OUT))
    trained = train_adapters(output, console=console)
    write_profiles(output, PROFILES)
    scores = score_adapters(output, trained, console=console)
    write_scores(output / "scores.json", scores)
    console.print(score_table(f"tiny: exact match on {HELD_OUT} held-out prompts", scores))


if __name__ == "__main__":
    typer.run(main)
