"""
The engine answers what PEFT answers: same greedy tokens, logits to rounding.

Every kind of adapter, alone and all of them in one batch, prompts read whole and in chunks, with and without reuse of
cached prefixes. Logits are compared because equal tokens hide faults: a DoRA without its magnitude once scored 100 %.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tailor_engine.request import EngineRequest, LoraInput, PromptTable, Wants
from transformers import AutoModelForCausalLM, AutoTokenizer

from build.reference_engine import EngineSettings
from tests.contract.engine.harness import Harness, Listener
from tests.contract.engine.peft_rows import lora_input, prompt_rows

NEW_TOKENS = 24
# Largest difference of logits that rounding explains; adapters move these logits by 10 and more.
TOLERANCE = 1e-4
# Two tokens closer than this may change places when the batch's shape changes the rounding.
NEAR_TIE = 1e-3

PROMPTS = {
    "base": "the red box is in oslo . where is the red box ?",
    "tenant-tool-lora": "we need pillow in cairo , make it 19 .",
    "summary-dora": "leon has a white ladder . profit of juniper rose by 88 because of good press . brevity 0 formal 0",
    "decomposition-ia3": "where does paul of ember live ?",
    "slip-lora": "send 4 lamp to rome .",
    "context-prompt": "igor was in lima . profit of juniper rose by 88 . where was igor ?",
    "tool-ptuning": "we need pillow in cairo , make it 19 .",
    "context-lora-qv + context-prompt": "paul has a green lamp . igor was in lima . where was igor ?",
}


@dataclass(frozen=True)
class Case:
    """An engine request and what PEFT says to it: greedy tokens, and the logits of every position after the first."""

    name: str
    request: EngineRequest
    tokens: list[int]
    prompt_logits: torch.Tensor
    token_logits: torch.Tensor


@torch.inference_mode()
def _greedy(
    model: Any,
    embed: Callable[[torch.Tensor], torch.Tensor],
    rows: torch.Tensor | None,
    ids: list[int],
    end_id: int,
) -> tuple[list[int], torch.Tensor]:
    """The plainest loop there is: no cache, the whole sequence every time. Returns tokens and all logits."""
    tokens: list[int] = []
    while True:
        inputs = embed(torch.tensor([ids + tokens]))
        if rows is not None:
            inputs = torch.cat([rows.unsqueeze(0), inputs], dim=1)
        logits = model(inputs_embeds=inputs).logits[0]
        token = int(logits[-1].argmax())
        if token == end_id or len(tokens) == NEW_TOKENS:
            return tokens, logits
        tokens.append(token)


@pytest.fixture(scope="module")
def cases(tiny: Path) -> dict[str, Case]:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    end_id = tokenizer.eos_token_id
    base = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
    state = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    made = {}
    for task_id, (name, prompt) in enumerate(PROMPTS.items(), start=1):
        ids = list(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
            )
        )
        parts = [] if name == "base" else [tiny / "adapters" / part for part in name.split(" + ")]
        model: Any = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
        embed = model.get_input_embeddings()
        lora: LoraInput | None = None
        table: PromptTable | None = None
        for part in parts:
            if (part / "adapter_config.json").read_text().find('"PROMPT_TUNING"') >= 0 or "ptuning" in part.name:
                rows = prompt_rows(part)
                virtual = list(range(base.config.vocab_size, base.config.vocab_size + rows.shape[0]))
                table = PromptTable(rows, tuple([task_id] * len(virtual) + [0] * len(ids)))
            else:
                lora = lora_input(part, task_id, state)
                model = PeftModel.from_pretrained(model, part).eval()
        tokens, logits = _greedy(model, embed, None if table is None else table.rows, ids, end_id)
        prompt_ids = ids if table is None else virtual + ids
        request = EngineRequest(
            input_ids=tuple(prompt_ids),
            max_new_tokens=NEW_TOKENS,
            end_id=end_id,
            streaming=True,
            prompt_table=table,
            lora=lora,
            wants=Wants(context_logits=True, generation_logits=True),
        )
        length = len(prompt_ids)
        made[name] = Case(name, request, tokens, logits[:length], logits[length - 1 : length - 1 + len(tokens)])
    return made


def _check(case: Case, listener: Listener, *, with_prompt: bool) -> None:
    assert listener.error is None, listener.error
    equal = _equal_tokens(case, listener.tokens)
    if with_prompt:
        prompt_logits = listener.outputs[-1].context_logits
        assert prompt_logits is not None
        assert (prompt_logits - case.prompt_logits).abs().max() < TOLERANCE
    assert (listener.generation_logits()[:equal] - case.token_logits[:equal]).abs().max() < TOLERANCE


def _equal_tokens(case: Case, tokens: list[int]) -> int:
    """How many tokens are to be compared: all, unless two of PEFT's logits were too close to call; that is printed."""
    if tokens == case.tokens:
        return len(tokens)
    place = next(
        (place for place, (ours, theirs) in enumerate(zip(tokens, case.tokens, strict=False)) if ours != theirs),
        min(len(tokens), len(case.tokens)),
    )
    assert place < len(case.token_logits), f"{case.name}: {tokens} instead of {case.tokens}"
    first, second = case.token_logits[place].topk(2).values.tolist()
    assert first - second < NEAR_TIE, f"{case.name}: token {place} differs by more than rounding"
    print(f"near tie: {case.name}, token {place}, {first - second:.1e} apart")
    return place


def _harness(tiny: Path, scratch: Path, *, chunk: int, reuse: bool) -> Harness:
    parameters = {"prefill_chunk_tokens": str(chunk), "max_num_tokens": str(chunk)}
    return Harness(tiny, scratch, parameters, EngineSettings(kv_reuse=reuse, tokens_per_block=8, kv_cache_tokens=8192))


@pytest.fixture(scope="module")
def engine(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Harness:
    return _harness(tiny, tmp_path_factory.mktemp("engine"), chunk=256, reuse=True)


@pytest.mark.parametrize("name", PROMPTS)
def test_alone_it_equals_peft(name: str, cases: dict[str, Case], engine: Harness) -> None:
    _check(cases[name], engine.answer(cases[name].request), with_prompt=True)


@pytest.mark.parametrize("name", [name for name in PROMPTS if name != "base"])
def test_the_adapter_matters_so_that_equality_means_something(name: str, cases: dict[str, Case]) -> None:
    plain = cases["base"]
    shared = min(len(plain.prompt_logits), len(cases[name].prompt_logits))
    assert (plain.prompt_logits[:shared] - cases[name].prompt_logits[:shared]).abs().max() > 1.0


@pytest.mark.parametrize("reuse", [True, False], ids=["reusing prefixes", "without reuse"])
@pytest.mark.parametrize("chunk", [256, 7], ids=["prompts read whole", "prompts read in chunks of 7"])
def test_all_kinds_in_one_batch_equal_peft(
    cases: dict[str, Case], tiny: Path, tmp_path: Path, chunk: int, reuse: bool
) -> None:
    harness = _harness(tiny, tmp_path, chunk=chunk, reuse=reuse)
    for _ in range(2):  # the second round finds the adapters resident, and prefixes where they are reused
        listeners = {name: harness.submit(case.request) for name, case in cases.items()}
        harness.finish(*listeners.values())
        for name, listener in listeners.items():
            _check(cases[name], listener, with_prompt=True)


def test_joining_and_leaving_at_every_step_changes_no_answer(
    cases: dict[str, Case], tiny: Path, tmp_path: Path
) -> None:
    harness = _harness(tiny, tmp_path, chunk=16, reuse=True)
    started = []
    for _ in range(4):
        for case in cases.values():
            request = replace(case.request, wants=Wants(generation_logits=True))
            started.append((case, harness.submit(request)))
            harness.engine.step()
    harness.finish(*(listener for _, listener in started))
    for case, listener in started:
        _check(case, listener, with_prompt=False)


def test_a_reused_prefix_gives_the_same_answer(cases: dict[str, Case], tiny: Path, tmp_path: Path) -> None:
    harness = _harness(tiny, tmp_path, chunk=256, reuse=True)
    wants = Wants(generation_logits=True, perf_metrics=True)
    for case in cases.values():
        request = replace(case.request, wants=wants)
        first, second = harness.answer(request), harness.answer(request)
        _check(case, first, with_prompt=False)
        _check(case, second, with_prompt=False)
        reused = second.outputs[-1].perf
        assert reused is not None
        assert reused.reused_blocks == (len(request.input_ids) - 1) // 8
        known = first.outputs[-1].perf
        assert known is not None
        assert known.reused_blocks == 0  # every case has another adapter or table, so nothing was shared


def test_one_task_id_never_reads_another_ones_prefix(cases: dict[str, Case], tiny: Path, tmp_path: Path) -> None:
    harness = _harness(tiny, tmp_path, chunk=256, reuse=True)
    lora = cases["tenant-tool-lora"].request
    harness.answer(lora)
    plain = harness.answer(replace(lora, lora=None, wants=Wants(perf_metrics=True)))
    assert plain.outputs[-1].perf is not None
    assert plain.outputs[-1].perf.reused_blocks == 0
    assert plain.tokens != cases["tenant-tool-lora"].tokens
