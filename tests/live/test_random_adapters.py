"""
Adapters nobody has seen, of every kind, through `tailor adapters add` and the gateway, against plain peft.

Their weights are random and large: a fault in conversion shows in the first tokens; a trained adapter can hide it.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import openai
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from build.scoring.demo import BASES
from build.scoring.plain_peft import PlainPeft
from build.training.encoding import render_prompt
from tests.live.judging import Verdicts
from tests.live.stack import Stack

TINY = BASES["tiny"]
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PROMPTS = ["hello there", "status of user emil ?", "profit of garnet", "who owns the grey tent ?", "a", "9 8 7 6"]
NEW_TOKENS = 24
TOLERANCE = 1e-3
KINDS: dict[str, peft.PeftConfig] = {
    "lora-all": peft.LoraConfig(r=8, lora_alpha=16, target_modules=LINEAR),
    "lora-odd-rank-on-v-alone": peft.LoraConfig(r=5, lora_alpha=7, target_modules=["v_proj"]),
    "lora-rank-and-alpha-patterns": peft.LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["q_proj", "down_proj"],
        rank_pattern={"q_proj": 16},
        alpha_pattern={"down_proj": 2},
    ),
    "rslora": peft.LoraConfig(r=16, lora_alpha=8, use_rslora=True, target_modules=["q_proj", "up_proj"]),
    "dora": peft.LoraConfig(r=6, lora_alpha=12, use_dora=True, target_modules=["k_proj", "o_proj", "gate_proj"]),
    "ia3": peft.IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "prompt-tuning": peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=11),
    "p-tuning": peft.PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=7, encoder_hidden_size=64),
}


def write_random(folder: Path, config: peft.PeftConfig, seed: int) -> Path:
    """A peft directory with every tuned weight drawn anew."""
    config.task_type = "CAUSAL_LM"
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(TINY.checkpoint, dtype=torch.float32), config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                noise = torch.randn(weight.shape, generator=generator)
                # Scales and magnitudes stand around 1 and around a norm; everything else stands around 0.
                if "ia3" in name or "magnitude" in name:
                    weight.copy_(weight * (1 + 0.7 * noise))
                else:
                    weight.copy_(noise if "prompt_encoder" in name else 0.2 * noise)
    model.eval().save_pretrained(folder)
    document = folder / "adapter_config.json"
    settings = json.loads(document.read_text()) | {"base_model_name_or_path": "tiny"}
    document.write_text(json.dumps(settings))
    return folder


def tailor(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli.main", *arguments],
        env={"TAILOR_ADMIN_URL": stack.admin_url, "TAILOR_ADMIN_KEY": stack.admin_key, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


@dataclass(frozen=True)
class Served:
    """An answer as a caller got it: its text, and the log-probability of each of its tokens."""

    text: str
    logprobs: tuple[float, ...]


async def answers(stack: Stack, model: str) -> list[Served]:
    client = stack.async_openai()

    async def ask(prompt: str) -> Served:
        message = {"role": "user", "content": prompt}
        for _ in range(100):
            try:
                answer = await client.chat.completions.create(
                    model=model, messages=[message], temperature=0, max_tokens=NEW_TOKENS, logprobs=True
                )
                choice = answer.choices[0]
                return Served(choice.message.content or "", tuple(entry.logprob for entry in choice.logprobs.content))
            except openai.NotFoundError:
                # Workers learn of a new profile within a moment; until then its name is unknown.
                await asyncio.sleep(0.05)
        raise AssertionError(f"{model} never became known")

    async with client:
        return list(await asyncio.gather(*(ask(prompt) for prompt in PROMPTS)))


def faults(adapters: list[Path], served: list[Served]) -> list[str]:
    """Where what was served is not what plain peft says, in text or in any token's log-probability."""
    judge, base, verdicts = PlainPeft(TINY.checkpoint, adapters), PlainPeft(TINY.checkpoint), Verdicts()
    moved = 0.0
    for prompt, one in zip(PROMPTS, served, strict=True):
        rendered = render_prompt(judge.tokenizer, prompt)
        [completion] = judge.complete_ids([rendered], max_new_tokens=NEW_TOKENS)
        text = judge.tokenizer.decode(completion, skip_special_tokens=True)
        verdicts.compare(judge, prompt, one.text, text)
        if one.text != text or not completion:
            continue
        own, plain = (logprobs(model, rendered, completion) for model in (judge, base))
        moved = max(moved, (own - plain).abs().max().item())
        off = (own - torch.tensor(one.logprobs)).abs().max().item()
        if off > TOLERANCE:
            verdicts.faults.append(f"{prompt!r}: a log-probability is {off:.2g} off")
    assert moved > 10 * TOLERANCE or verdicts.faults, "an adapter without an effect would prove nothing"
    return verdicts.faults


def logprobs(model: PlainPeft, prompt: list[int], completion: list[int]) -> torch.Tensor:
    scores = torch.log_softmax(model.logits(prompt, completion)[:-1], dim=-1)
    return scores.gather(1, torch.tensor(completion)[:, None])[:, 0]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_random_adapter_answers_as_plain_peft_does(stack: Stack, tmp_path: Path, kind: str) -> None:
    folder = write_random(tmp_path / kind, KINDS[kind], seed=len(kind))
    name = f"random-{kind}"
    added = tailor(stack, "adapters", "add", str(folder), "--tenant", "acme", "--name", name, "--json")
    assert added.returncode == 0, added.stdout + added.stderr
    assert json.loads(added.stdout)["version"]["number"] == 1
    assert faults([folder], await answers(stack, name)) == []


async def test_a_lora_and_virtual_tokens_in_one_profile(stack: Stack, tmp_path: Path) -> None:
    folders = [
        write_random(tmp_path / "weights", KINDS["lora-all"], seed=3),
        write_random(tmp_path / "table", KINDS["prompt-tuning"], seed=4),
    ]
    added = tailor(stack, "adapters", "add", *map(str, folders), "--tenant", "acme", "--name", "random-both")
    assert added.returncode == 0, added.stdout + added.stderr
    assert faults(folders, await answers(stack, "random-both")) == []


async def test_a_new_version_is_live_when_promoted_and_the_old_one_when_rolled_back(
    stack: Stack, tmp_path: Path
) -> None:
    async def texts(model: str) -> list[str]:
        return [answer.text for answer in await answers(stack, model)]

    async def settles(expected: list[str]) -> bool:
        for _ in range(100):
            if await texts("random-two") == expected:
                return True
            await asyncio.sleep(0.05)
        return False

    folders = [write_random(tmp_path / str(seed), KINDS["lora-all"], seed=seed) for seed in (5, 6)]
    for folder in folders:
        added = tailor(stack, "adapters", "add", str(folder), "--tenant", "acme", "--name", "random-two")
        assert added.returncode == 0, added.stderr
    first, second = [await texts(f"random-two@{number}") for number in (1, 2)]
    assert first != second
    assert await settles(first), "a second version is not live before it is promoted"
    assert tailor(stack, "adapters", "promote", "acme/random-two@2").returncode == 0
    assert await settles(second)
    assert tailor(stack, "adapters", "rollback", "acme/random-two").returncode == 0
    assert await settles(first)


def corrupt(write: Callable[[Path], object]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        made = write_random(folder, KINDS["lora-odd-rank-on-v-alone"], seed=1)
        write(made / "adapter_model.safetensors")
        return made

    return make


@pytest.mark.parametrize(
    "spoil",
    [
        corrupt(lambda file: file.write_bytes(file.read_bytes()[:-100])),
        corrupt(lambda file: file.write_bytes(b"\xff" * 64)),
        corrupt(lambda file: file.write_bytes(b"")),
        corrupt(lambda file: file.rename(file.with_name("adapter_model.bin"))),
    ],
    ids=["cut short", "not safetensors", "empty", "a pickle's name"],
)
def test_a_corrupt_adapter_is_refused_in_one_clear_sentence(
    stack: Stack, tmp_path: Path, spoil: Callable[[Path], Path]
) -> None:
    folder = spoil(tmp_path / "broken")
    refused = tailor(stack, "adapters", "add", str(folder), "--tenant", "acme", "--name", "broken")
    assert refused.returncode != 0
    assert "Traceback" not in refused.stderr
    assert len(refused.stderr.strip().splitlines()) <= 3, refused.stderr
    assert "broken" not in {model.id for model in stack.openai().models.list()}
