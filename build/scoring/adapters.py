"""
Scoring freshly trained adapters beside their base.

Decides: what is asked of whom: the base bare and instructed, the adapter bare, and each part of a pair alone.
Does not know: recipes' contents, how progress is shown.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from build.recipes.recipe import AdapterRecipe
from build.scoring.exact import AdapterScores, Score, exact_match
from build.scoring.plain_peft import PlainPeft
from build.tasks.example import Example
from build.training.demo import TrainedAdapter, trained_before


class Judge:
    """Scores one base's adapters; what the base alone scores on a set is measured once."""

    def __init__(self, base_directory: Path, adapters: Path) -> None:
        self._base_directory = base_directory
        self._adapters = adapters
        self._base = PlainPeft(base_directory)
        self._base_scores: dict[str, tuple[Score, Score]] = {}

    def score(
        self,
        recipe: AdapterRecipe,
        trained: TrainedAdapter,
        rows: Sequence[Example],
        *,
        set_name: str,
        on_answer: Callable[[int], None] = lambda count: None,
    ) -> list[AdapterScores]:
        """
        One row for an adapter; three for one that stands behind a table (both, and either alone).

        rows: the held-out set.  set_name: what it is called; rows of one name must be the same.
        """
        if set_name not in self._base_scores:
            bare = self._right(self._base, rows, None, on_answer)
            instructed = self._right(self._base, rows, recipe.task.instruction, on_answer)
            self._base_scores[set_name] = (bare, instructed)
        bare, instructed = self._base_scores[set_name]
        combinations: list[tuple[str, tuple[str, ...]]] = [(recipe.name, (recipe.name,))]
        if recipe.behind is not None:
            combinations = [
                (f"{recipe.name} + {recipe.behind}", (recipe.name, recipe.behind)),
                (f"{recipe.name} alone", (recipe.name,)),
                (f"{recipe.behind} alone", (recipe.behind,)),
            ]
        scores = []
        for title, names in combinations:
            size = trained if recipe.name in names else trained_before(self._adapters / names[0])
            model = PlainPeft(self._base_directory, [self._adapters / name for name in names])
            scores.append(
                AdapterScores(
                    name=title,
                    held_out_set=set_name,
                    method=recipe.method if recipe.name in names else "its table alone",
                    trainable_parameters=size.trainable_parameters,
                    file_bytes=size.file_bytes,
                    base_bare=bare,
                    base_instructed=instructed,
                    adapted=self._right(model, rows, None, on_answer),
                )
            )
        return scores

    def _right(
        self, model: PlainPeft, rows: Sequence[Example], instruction: str | None, on_answer: Callable[[int], None]
    ) -> Score:
        # An answer that has not ended a little after the longest right one is wrong however it goes on.
        longest = max(len(model.tokenizer(row.answer)["input_ids"]) for row in rows)
        answers = model.answers(
            [row.prompt for row in rows],
            max_new_tokens=longest + 4,
            instruction=instruction,
            on_answer=on_answer,
        )
        return exact_match(answers, rows)
