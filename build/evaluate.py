"""
`python -m build.evaluate`: what each demo profile scores on its held-out set under plain peft.

Decides: options and how scores are shown.
Does not know: how answers come about (build/scoring/plain_peft.py, which tests import too).
"""

import sys
import warnings
from pathlib import Path
from typing import Annotated

import msgspec
import torch
import typer
from rich.console import Console
from rich.table import Table
from transformers.utils import logging

from build.console import progress_bar
from build.recipes.recipe import read_held_out
from build.scoring.demo import BASES, DemoBase, ProfileDocument, read_profiles
from build.scoring.exact import Score, exact_match
from build.scoring.plain_peft import PlainPeft
from build.scoring.served import Served


class ProfileScore(msgspec.Struct, frozen=True):
    """
    A profile's score under plain peft; misses are the answers that were wrong, beside the right ones.

    served: the score of a running gateway, and same: how many of its answers are plain peft's, where one was asked.
    """

    profile: str
    task: str
    adapters: tuple[str, ...]
    score: Score
    misses: list[tuple[str, str, str]]
    served: Score | None = None
    same: int | None = None


def evaluate(
    base: DemoBase, profile: ProfileDocument, *, limit: int | None = None, gateway: Served | None = None
) -> ProfileScore:
    """
    Score one profile on its held-out set (the first `limit` of it), greedily, in float32.

    Each miss is (prompt, answer, right answer).
    """
    rows = read_held_out(base.artefacts, profile.task)[:limit]
    model = PlainPeft(base.checkpoint, [base.artefacts / adapter for adapter in profile.adapters])
    answers = model.answers([row.prompt for row in rows], max_new_tokens=base.max_new_tokens)
    misses = [
        (row.prompt, answer, row.answer) for row, answer in zip(rows, answers, strict=True) if answer != row.answer
    ]
    scored = ProfileScore(profile.full_name, profile.task, profile.adapters, exact_match(answers, rows), misses)
    if gateway is None:
        return scored
    served = gateway.answers(profile, [row.prompt for row in rows], max_new_tokens=base.max_new_tokens)
    same = sum(one == other for one, other in zip(served, answers, strict=True))
    return msgspec.structs.replace(scored, served=exact_match(served, rows), same=same)


def main(
    base: Annotated[str, typer.Option(help="tiny or smollm2.")] = "tiny",
    profile: Annotated[str, typer.Option(help="One profile, NAME or TENANT/NAME; all without it.")] = "",
    served: Annotated[
        Path | None, typer.Option(metavar="ENV", help="Also ask the gateway of this env file, such as .run/env.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every miss.")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    """Score the demo profiles under plain transformers and peft, and beside it through a running gateway."""
    logging.disable_progress_bar()
    # Of two libraries about each other: a name that will go, and the position ids that PlainPeft takes care of.
    warnings.filterwarnings("ignore", message=".*(is_gradient_checkpointing|Position ids)")
    torch.set_num_threads(threads)
    if base not in BASES:
        raise typer.BadParameter(f"{base!r} is not one of {', '.join(BASES)}", param_hint="--base")
    chosen = BASES[base]
    if not (chosen.checkpoint / "config.json").is_file():
        raise typer.BadParameter(
            f"{chosen.checkpoint} is not there yet; `python -m build.smollm2_base` makes it in seconds",
            param_hint="--base",
        )
    known = read_profiles(chosen)
    profiles = [one for one in known if profile in ("", one.name, one.full_name)]
    if not profiles:
        names = ", ".join(one.full_name for one in known)
        raise typer.BadParameter(f"{profile!r} is not one of {names}", param_hint="--profile")
    if served is not None and not served.is_file():
        raise typer.BadParameter(f"there is no {served}; start the gateway with `make up`", param_hint="--served")
    gateway = None if served is None else Served(served)
    console = Console(stderr=as_json)
    scores = []
    with progress_bar(console) as bar:
        line = bar.add_task("scoring", total=len(profiles), note="")
        for one in profiles:
            bar.update(line, note=one.full_name)
            scores.append(evaluate(chosen, one, gateway=gateway))
            bar.advance(line)
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(scores), indent=2).decode() + "\n")
        return
    table = Table(title=f"{base}: exact match on held-out prompts")
    table.add_column("profile", no_wrap=True)
    for column in ("adapters", "plain peft"):
        table.add_column(column)
    if gateway:
        table.add_column("gateway")
        table.add_column("same text")
    for row in scores:
        names = " + ".join(adapter.removeprefix("adapters/") for adapter in row.adapters)
        through = [str(row.served), f"{row.same}/{row.score.total}"] if gateway else []
        table.add_row(row.profile, names, str(row.score), *through)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
