"""The judge: what committed adapters answer under plain peft, and that it is peft's answer."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from build.evaluate import evaluate
from build.recipes.recipe import read_held_out
from build.scoring.demo import BASES, ProfileDocument, read_profiles
from build.scoring.exact import exact_match
from build.scoring.plain_peft import PlainPeft, TooManyAdapters
from build.training.encoding import render_prompt

TINY = BASES["tiny"]
PROFILES = {profile.full_name: profile for profile in read_profiles(TINY)}
SAMPLE = 16


@pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))
def test_the_adapter_does_the_task_and_the_base_does_not(profile: ProfileDocument) -> None:
    assert evaluate(TINY, profile, limit=SAMPLE).score.share >= 0.95

    rows = read_held_out(TINY.artefacts, profile.task)[:SAMPLE]
    bare = PlainPeft(TINY.checkpoint).answers([row.prompt for row in rows], max_new_tokens=TINY.max_new_tokens)
    assert exact_match(bare, rows).right == 0


@pytest.mark.parametrize("part", [0, 1], ids=["the LoRA", "the virtual tokens"])
def test_neither_part_of_the_pair_does_the_task_alone(part: int) -> None:
    profile = PROFILES["acme/order-slip"]
    rows = read_held_out(TINY.artefacts, profile.task)[:SAMPLE]
    model = PlainPeft(TINY.checkpoint, [TINY.artefacts / profile.adapters[part]])
    answers = model.answers([row.prompt for row in rows], max_new_tokens=TINY.max_new_tokens)
    assert exact_match(answers, rows).right == 0


@pytest.mark.parametrize("name", ["acme/order-desk", "acme/support-bot", "acme/order-form"])
def test_batches_answer_as_peft_does_one_prompt_at_a_time(name: str) -> None:
    profile = PROFILES[name]
    rows = read_held_out(TINY.artefacts, profile.task)[:SAMPLE]
    tokenizer = AutoTokenizer.from_pretrained(TINY.checkpoint)
    base = AutoModelForCausalLM.from_pretrained(TINY.checkpoint, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, TINY.artefacts / profile.adapters[0]).eval()
    alone = []
    for row in rows:
        ids = torch.tensor([render_prompt(tokenizer, row.prompt)])
        produced = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=TINY.max_new_tokens, do_sample=False
        )[0].tolist()
        if produced[: ids.shape[1]] == ids[0].tolist():
            produced = produced[ids.shape[1] :]
        alone.append(tokenizer.decode(produced, skip_special_tokens=True))
    together = PlainPeft(TINY.checkpoint, [TINY.artefacts / profile.adapters[0]]).answers(
        [row.prompt for row in rows], max_new_tokens=TINY.max_new_tokens
    )
    assert together == alone


def test_a_pair_with_its_table_alone_equals_pefts_prompt_tuning() -> None:
    """The path for pairs, given a LoRA that does nothing, is peft's own path for virtual tokens."""
    table = TINY.artefacts / "adapters/tool-ptuning"
    pair = PlainPeft(TINY.checkpoint, [TINY.artefacts / "adapters/slip-lora", table])
    for name, parameter in pair.model.named_parameters():
        if "lora_B" in name:
            parameter.data.zero_()
    alone = PlainPeft(TINY.checkpoint, [table])
    prompts = [row.prompt for row in read_held_out(TINY.artefacts, "tool")[:SAMPLE]]
    assert pair.answers(prompts, max_new_tokens=40) == alone.answers(prompts, max_new_tokens=40)


def test_two_adapters_of_one_family_are_refused() -> None:
    both: list[Path] = [TINY.artefacts / "adapters/context-prompt", TINY.artefacts / "adapters/tool-ptuning"]
    with pytest.raises(TooManyAdapters, match="at most one LoRA-family adapter and one prompt table"):
        PlainPeft(TINY.checkpoint, both)


def test_prompts_of_several_lengths_are_refused_behind_virtual_tokens() -> None:
    model = PlainPeft(TINY.checkpoint, [TINY.artefacts / "adapters/context-prompt"])
    with pytest.raises(ValueError, match="must have one length"):
        model.complete_ids([[1, 3, 4], [1, 3, 9, 4]], max_new_tokens=1)
