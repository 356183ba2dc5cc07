"""The generators: the same seed gives the same examples, and what is held out is never trained on."""

from itertools import product

import pytest

from build.recipes import smollm2, tiny
from build.recipes.recipe import read_held_out
from build.scoring.demo import BASES
from build.smollm2_adapters.__main__ import SIDES, held_out_name
from build.tasks import questions, reports, tickets, words
from build.tasks.example import Side, Task, examples, side_of
from build.tasks.words import Words

TINY_TASKS = sorted({recipe.task.name: recipe.task for recipe in tiny.ADAPTERS}.items())
SMOLLM2_RECIPES = smollm2.ADAPTERS
ALL_TASKS = [task for _, task in TINY_TASKS] + [recipe.task for recipe in SMOLLM2_RECIPES]


def name_of(task: Task) -> str:
    return task.name


@pytest.mark.parametrize("task", ALL_TASKS, ids=name_of)
@pytest.mark.parametrize("side", [Side.TRAINING, Side.HELD_OUT])
def test_a_seed_decides_the_examples(task: Task, side: Side) -> None:
    assert examples(task, 40, seed=5, side=side) == examples(task, 40, seed=5, side=side)
    assert examples(task, 40, seed=5, side=side) != examples(task, 40, seed=6, side=side)


@pytest.mark.parametrize("task", ALL_TASKS, ids=name_of)
def test_examples_are_distinct_and_say_when_there_are_too_few(task: Task) -> None:
    drawn = examples(task, 64, seed=1, side=Side.HELD_OUT)
    assert len({example.prompt for example in drawn}) == 64

    only_one = Task("only-one", "", lambda rng, side: drawn[0])
    with pytest.raises(ValueError, match=r"only 1 distinct held-out prompts, 2 were asked for"):
        examples(only_one, 2, seed=1, side=Side.HELD_OUT)


@pytest.mark.parametrize(("name", "task"), TINY_TASKS)
def test_tiny_trains_on_no_held_out_prompt(name: str, task: Task) -> None:
    held_out = {row.prompt for row in read_held_out(BASES["tiny"].artefacts, name)}
    assert len(held_out) == tiny.HELD_OUT
    assert all(side_of(prompt) is Side.HELD_OUT for prompt in held_out)
    for recipe in tiny.ADAPTERS:
        if recipe.task is task:
            plan = recipe.plan
            trained = {row.prompt for row in examples(task, plan.examples, seed=plan.seed, side=Side.TRAINING)}
            assert trained.isdisjoint(held_out)


@pytest.mark.parametrize("recipe", SMOLLM2_RECIPES, ids=lambda recipe: recipe.name)
def test_smollm2_trains_on_no_held_out_word(recipe: smollm2.AdapterRecipe) -> None:
    plan = recipe.plan
    trained = "\n".join(
        f"{row.prompt}\n{row.answer}"
        for row in examples(recipe.task, plan.examples, seed=plan.seed, side=Side.TRAINING)
    )
    lists = [value for module in (words, reports) for value in vars(module).values() if isinstance(value, Words)]
    assert len(lists) >= 7
    for kind in lists:
        assert set(kind.training).isdisjoint(kind.held_out)
        for word in kind.held_out:
            assert word not in trained


def test_new_phrasings_are_no_training_phrasings() -> None:
    pairs = [
        *((tickets._TRAINING[queue], tickets._NEW_PHRASINGS[queue]) for queue in tickets._TRAINING),
        (tickets._URGENT[Side.TRAINING], tickets._URGENT[Side.NEW_PHRASINGS]),
        (tickets._CALM[Side.TRAINING], tickets._CALM[Side.NEW_PHRASINGS]),
        (questions._FROM_PERSON[Side.TRAINING], questions._FROM_PERSON[Side.NEW_PHRASINGS]),
        (questions._COMPARED[Side.TRAINING], questions._COMPARED[Side.NEW_PHRASINGS]),
        (reports._REPORTS[Side.TRAINING], reports._REPORTS[Side.NEW_PHRASINGS]),
    ]
    for training, new in pairs:
        assert set(training).isdisjoint(new)


@pytest.mark.parametrize(
    ("recipe", "side"),
    list(product(SMOLLM2_RECIPES, SIDES)),
    ids=lambda value: value.name if hasattr(value, "plan") else value.value,
)
def test_committed_held_out_sets_are_what_the_generators_draw(recipe: smollm2.AdapterRecipe, side: Side) -> None:
    drawn = examples(recipe.task, smollm2.HELD_OUT, seed=1, side=side)
    assert read_held_out(BASES["smollm2"].artefacts, held_out_name(recipe, side)) == drawn


@pytest.mark.parametrize(("name", "task"), TINY_TASKS)
def test_committed_tiny_sets_are_what_the_generators_draw(name: str, task: Task) -> None:
    assert read_held_out(BASES["tiny"].artefacts, name) == examples(task, tiny.HELD_OUT, seed=1, side=Side.HELD_OUT)
