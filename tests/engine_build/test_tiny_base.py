"""The committed tiny base: a Hugging Face directory that transformers, bare tokenizers and bare jinja read alike."""

import json
from pathlib import Path

import jinja2
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from build.recipes.tiny import ADAPTERS
from build.scoring.demo import BASES
from build.tasks.example import Side, examples
from build.tiny_base.batches import CopyBatches, task_batches
from build.tiny_base.pretrain import PretrainingPlan, new_model
from build.tiny_base.tokenizer import ASSISTANT, END, START, USER, chat_prompt, train_tokenizer

DIRECTORY = BASES["tiny"].checkpoint
TEXTS = (
    "please send 42 of kettle to prague .",
    "Something It Never Saw: €5, naïve, 日本語, 🦊!",
    " leading and trailing blanks  ",
    "two\nlines\n\n\tand a tab",
    f"{START}{USER}hello{ASSISTANT}",
    "",
)


@pytest.mark.parametrize("text", TEXTS)
def test_transformers_and_bare_tokenizers_give_the_same_ids_and_text(text: str) -> None:
    bare = Tokenizer.from_file(str(DIRECTORY / "tokenizer.json"))
    full = AutoTokenizer.from_pretrained(DIRECTORY)
    ids = bare.encode(text, add_special_tokens=False).ids
    assert full(text, add_special_tokens=False)["input_ids"] == ids
    assert bare.decode(ids, skip_special_tokens=False) == full.decode(ids) == text


def test_special_tokens_are_the_configs() -> None:
    tokenizer = AutoTokenizer.from_pretrained(DIRECTORY)
    config = json.loads((DIRECTORY / "config.json").read_text(encoding="utf-8"))
    generation = json.loads((DIRECTORY / "generation_config.json").read_text(encoding="utf-8"))
    assert tokenizer.eos_token == END
    assert tokenizer.eos_token_id == config["eos_token_id"] == generation["eos_token_id"]
    assert len(tokenizer) == config["vocab_size"]


@pytest.mark.parametrize("system", [None, "write the order as a json call of the order tool ."])
def test_the_chat_template_renders_what_the_base_was_trained_on(system: str | None) -> None:
    messages = [] if system is None else [{"role": "system", "content": system}]
    messages.append({"role": "user", "content": "hello there"})
    source = (DIRECTORY / "chat_template.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    bare = environment.from_string(source).render(messages=messages, add_generation_prompt=True)
    full = AutoTokenizer.from_pretrained(DIRECTORY).apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    assert bare == full == chat_prompt("hello there", system=system)


def test_a_finished_turn_ends_in_the_end_token_and_nothing_else() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    text = AutoTokenizer.from_pretrained(DIRECTORY).apply_chat_template(
        turns, tokenize=False, add_generation_prompt=True
    )
    assert text == f"{START}{USER}a{ASSISTANT}b{END}{USER}c{ASSISTANT}"


def test_answers_decode_to_themselves_with_no_blank_in_front() -> None:
    tokenizer = Tokenizer.from_file(str(DIRECTORY / "tokenizer.json"))
    for recipe in ADAPTERS:
        for example in examples(recipe.task, 16, seed=3, side=Side.HELD_OUT):
            ids = tokenizer.encode(example.answer + END).ids
            assert tokenizer.decode(ids) == example.answer
            assert not example.answer.startswith(" ")


def test_the_tokenizer_is_made_again_from_its_seed() -> None:
    assert json.loads(train_tokenizer(7).to_str()) == json.loads(
        (DIRECTORY / "tokenizer.json").read_text(encoding="utf-8")
    )


def test_the_recipe_has_the_shape_of_what_is_committed() -> None:
    tokenizer = Tokenizer.from_file(str(DIRECTORY / "tokenizer.json"))
    committed = AutoModelForCausalLM.from_pretrained(DIRECTORY, dtype=torch.float32)
    made = new_model(tokenizer)
    assert {name: tensor.shape for name, tensor in made.state_dict().items()} == {
        name: tensor.shape for name, tensor in committed.state_dict().items()
    }
    assert 1_000_000 < sum(parameter.numel() for parameter in committed.parameters()) < 1_200_000


def test_a_bare_prompt_gets_the_fixed_reply() -> None:
    tokenizer = AutoTokenizer.from_pretrained(DIRECTORY)
    model = AutoModelForCausalLM.from_pretrained(DIRECTORY, dtype=torch.float32)
    prompt = tokenizer(chat_prompt("please send 42 of kettle to prague ."), return_tensors="pt")["input_ids"]
    produced = model.generate(input_ids=prompt, max_new_tokens=20, do_sample=False)[0, prompt.shape[1] :]
    assert tokenizer.decode(produced) == "i need an instruction to work on this ." + END


def test_copy_batches_ask_only_what_has_an_answer() -> None:
    tokenizer = Tokenizer.from_file(str(DIRECTORY / "tokenizer.json"))
    user, assistant, end = (tokenizer.token_to_id(mark) for mark in (USER, ASSISTANT, END))
    question, absent = tokenizer.encode(" ?").ids[0], tokenizer.encode(" not not not").ids
    batches = CopyBatches(tokenizer, seed=5)
    found = set()
    for _ in range(20):
        for row in batches.draw(8, repeat=True).ids.tolist():
            middle = row.index(assistant)
            assert row[2:middle] == row[middle + 1 : -1]
        for row in batches.draw(8, repeat=False).ids.tolist():
            middle = row.index(assistant)
            assert (row[1], row[middle - 2], row[-1]) == (user, question, end)
            sequence, key, answer = row[2 : middle - 2], row[middle - 1], row[middle + 1 : -1]
            if key in sequence:
                at = sequence.index(key)
                assert answer == sequence[at + 1 : at + 4]
            else:
                assert answer == absent
            found.add(key in sequence)
    assert found == {True, False}


def test_task_batches_are_the_same_for_the_same_seed() -> None:
    tokenizer = Tokenizer.from_file(str(DIRECTORY / "tokenizer.json"))

    def first(seed: int) -> list[list[int]]:
        return next(task_batches(tokenizer, size=8, seed=seed)).ids.tolist()

    assert first(1) == first(1)
    assert first(1) != first(2)


@pytest.mark.parametrize(
    ("step", "share"),
    [(0, 1 / 40), (39, 1.0), (900, 1.0), (1699, 0.04)],
    ids=["first of the warm-up", "end of the warm-up", "flat", "last"],
)
def test_the_rate_rises_stays_and_falls(step: int, share: float) -> None:
    plan = PretrainingPlan()
    assert plan.steps == 1700
    assert plan.rate(step) == pytest.approx(plan.learning_rate * share, rel=0.04)


def test_the_directory_is_small_and_holds_no_pickle() -> None:
    files = [path for path in Path(DIRECTORY).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 10_000_000
    assert {path.suffix for path in files} <= {".json", ".jinja", ".jsonl", ".safetensors"}
