"""Training adapters: what is learnt, by whom, and what is written."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from build.recipes.recipe import AdapterRecipe
from build.recipes.tiny import ADAPTERS
from build.scoring.demo import BASES
from build.tasks.example import Example, Side, examples
from build.training.adapter import TrainingPlan, answer_loss, own_table
from build.training.demo import train_recipe
from build.training.encoding import AnswerBatch, encode, endless_batches
from build.training.methods import prompt_tuning
from build.training.saving import WEIGHTS

BASE = BASES["tiny"].checkpoint
RECIPES = {recipe.name: recipe for recipe in ADAPTERS}


def first_batch(size: int, pad_id: int) -> AnswerBatch:
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    recipe = RECIPES["context-prompt"]
    rows = [encode(tokenizer, row) for row in examples(recipe.task, size, seed=2, side=Side.TRAINING)]
    return next(endless_batches(rows, size=size, seed=1, pad_id=pad_id))


def test_an_answer_is_learnt_with_its_end_token_even_where_that_is_the_pad_token() -> None:
    end = AutoTokenizer.from_pretrained(BASE).eos_token_id
    batch = first_batch(8, pad_id=end)
    for ids, attention, learnt in zip(batch.ids, batch.attention, batch.is_answer, strict=True):
        answer = ids[learnt].tolist()
        assert answer[-1] == end
        assert answer.count(end) == 1
        length = int(attention.sum())
        # The answer is the end of what is attended to; nothing behind it is learnt.
        assert learnt.nonzero().flatten().tolist() == list(range(length - len(answer), length))


@pytest.mark.parametrize("virtual_tokens", [0, 5])
def test_the_loss_is_transformers_own(virtual_tokens: int) -> None:
    batch = first_batch(8, pad_id=0)
    labels = batch.ids.masked_fill(~batch.is_answer, -100)
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    with torch.no_grad():
        if virtual_tokens == 0:
            right = model(input_ids=batch.ids, attention_mask=batch.attention, labels=labels).loss
            loss = answer_loss(model, batch, None)
        else:
            config = prompt_tuning(virtual_tokens=virtual_tokens, text="some words to begin with", base_directory=BASE)
            adapted = get_peft_model(model, config).eval()
            right = adapted(input_ids=batch.ids, attention_mask=batch.attention, labels=labels).loss
            loss = answer_loss(adapted.get_base_model(), batch, own_table(adapted)())
    torch.testing.assert_close(loss, right)


def test_every_example_is_used_once_a_pass() -> None:
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    rows = [encode(tokenizer, Example(f"p {index}", "a")) for index in range(6)]
    batches = endless_batches(rows, size=3, seed=1, pad_id=0)
    seen = [tuple(row.tolist()) for _ in range(2) for row in next(batches).ids]
    assert len(set(seen)) == 6


@pytest.mark.parametrize(
    ("step", "share"), [(0, 0.1), (9, 1.0), (10, 1.0), (109, 0.05)], ids=["first", "warm", "flat top", "last"]
)
def test_the_rate_warms_up_and_falls(step: int, share: float) -> None:
    plan = TrainingPlan(steps=110, batch=1, learning_rate=2.0, examples=1, seed=1)
    assert plan.rate(step) == pytest.approx(2.0 * share, rel=0.2)


def short(recipe: AdapterRecipe, steps: int) -> AdapterRecipe:
    return replace(recipe, plan=replace(recipe.plan, steps=steps, examples=32))


def train_short(recipe: AdapterRecipe, output: Path, steps: int, dtype: torch.dtype = torch.float32) -> list[float]:
    losses: list[float] = []
    train_recipe(
        short(recipe, steps),
        base_directory=BASE,
        base_name="tiny",
        output=output,
        dtype=dtype,
        on_step=lambda step, loss: losses.append(loss),
    )
    return losses


@pytest.mark.parametrize("name", [name for name in RECIPES if RECIPES[name].behind is None])
def test_a_short_training_lowers_the_loss_and_writes_what_peft_loads(name: str, tmp_path: Path) -> None:
    losses = train_short(RECIPES[name], tmp_path, steps=12, dtype=torch.float16)
    assert min(losses[-4:]) < losses[0]

    config = json.loads((tmp_path / name / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "tiny"
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["adapter_config.json", WEIGHTS]
    base = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    ids = torch.tensor([[1, 3, 300, 301, 4]])
    with torch.no_grad():
        bare = base(ids).logits[:, -1]
        model = PeftModel.from_pretrained(base, tmp_path / name).float().eval()
        assert (model(input_ids=ids).logits[:, -1] - bare).abs().max() > 1e-3
        with model.disable_adapter():
            torch.testing.assert_close(model(input_ids=ids).logits[:, -1], bare, rtol=0, atol=0)


def test_a_seed_decides_the_adapter(tmp_path: Path) -> None:
    recipe = RECIPES["tenant-tool-lora"]
    other = replace(recipe, plan=replace(recipe.plan, seed=recipe.plan.seed + 1))
    for place, chosen in (("one", recipe), ("two", recipe), ("three", other)):
        train_short(chosen, tmp_path / place, steps=3)
    one, two, three = (load_file(tmp_path / place / recipe.name / WEIGHTS) for place in ("one", "two", "three"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert any(not torch.equal(one[key], three[key]) for key in one)


def test_an_adapter_behind_a_table_needs_that_table(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        train_short(RECIPES["slip-lora"], tmp_path, steps=1)


def test_training_again_replaces_the_directory(tmp_path: Path) -> None:
    recipe = RECIPES["decomposition-ia3"]
    (tmp_path / recipe.name).mkdir()
    (tmp_path / recipe.name / "left-over.txt").write_text("old", encoding="utf-8")
    train_short(recipe, tmp_path, steps=1)
    assert {path.name for path in (tmp_path / recipe.name).iterdir()} == {"adapter_config.json", WEIGHTS}
