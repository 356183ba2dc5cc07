"""
From a recipe to an adapter directory.

Decides: how a recipe's examples, base, peft model and objectives are put together.
Does not know: which recipes there are, how progress is shown.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from build.recipes.recipe import AdapterRecipe
from build.tasks.example import Example, Side, examples
from build.training.adapter import Objective, own_table, train
from build.training.encoding import encode, endless_batches
from build.training.saving import WEIGHTS, save_adapter


@dataclass(frozen=True, slots=True)
class TrainedAdapter:
    """How many numbers one training set, and the bytes of the weights file."""

    trainable_parameters: int
    file_bytes: int


def train_recipe(
    recipe: AdapterRecipe,
    *,
    base_directory: Path,
    base_name: str,
    output: Path,
    dtype: torch.dtype,
    on_step: Callable[[int, float], None],
) -> TrainedAdapter:
    """
    Train one adapter and write it to output/<name>.

    The adapter it stands behind, if any, must lie in `output` already.
    """
    torch.manual_seed(recipe.plan.seed)
    plan = recipe.plan
    tokenizer = AutoTokenizer.from_pretrained(base_directory)
    base = AutoModelForCausalLM.from_pretrained(base_directory, dtype=torch.float32)
    model = get_peft_model(base, recipe.config(base_directory))
    rows = examples(recipe.task, plan.examples, seed=plan.seed, side=Side.TRAINING)

    def objective(chosen: Sequence[Example], table: Callable[[], torch.Tensor | None]) -> Objective:
        encoded = [encode(tokenizer, row) for row in chosen]
        batches = endless_batches(encoded, size=plan.batch, seed=plan.seed, pad_id=tokenizer.pad_token_id)
        return Objective(batches, table)

    objectives = [objective(rows, own_table(model))]
    if recipe.behind is not None:
        front = load_file(output / recipe.behind / WEIGHTS)["prompt_embeddings"].float()
        unselected = [Example(row.prompt, recipe.unselected) for row in rows]
        objectives = [objective(rows, lambda: front), objective(unselected, lambda: None)]

    train(model, objectives, plan, on_step)
    directory = output / recipe.name
    save_adapter(model, directory, base_name=base_name, dtype=dtype)
    return TrainedAdapter(
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        file_bytes=(directory / WEIGHTS).stat().st_size,
    )


def trained_before(directory: Path) -> TrainedAdapter:
    """
    The same of an adapter that is on disk, by what its file holds.

    Not for p-tuning, which trains an encoder that the file does not hold.
    """
    path = directory / WEIGHTS
    return TrainedAdapter(
        trainable_parameters=sum(tensor.numel() for tensor in load_file(path).values()),
        file_bytes=path.stat().st_size,
    )
