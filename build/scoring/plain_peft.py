"""
What transformers and peft themselves answer: the judge of every other way of serving an adapter.

Decides: how a base with no, one or two adapters is loaded and asked, greedily and in float32.
Does not know: tasks, profiles, engines.

One adapter is peft's own `generate`. For a LoRA-family adapter *and* virtual tokens together peft has no single model:
there, peft's LoRA model is given input embeddings, the table's rows followed by those of the whole rendered prompt,
which is where peft's prompt tuning puts its virtual tokens too.

Behind virtual tokens, prompts of one length go together and others never do: peft would put the table before the pads
and answers would change. Without them, prompts are padded on the left, which transformers' positions account for.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from build.training.encoding import render_prompt

PROMPT_LEARNING = frozenset({"PROMPT_TUNING", "P_TUNING"})


class TooManyAdapters(ValueError):
    """Two adapters of one family were given; a profile has at most one LoRA-family adapter and one prompt table."""


class PlainPeft:
    """
    A base with its adapters applied by peft.

    base_directory: a Hugging Face directory.  adapters: peft directories, at most one of each family, in any order.
    """

    def __init__(self, base_directory: Path, adapters: Sequence[Path] = ()) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(base_directory)
        model = AutoModelForCausalLM.from_pretrained(base_directory, dtype=torch.float32)
        virtual = [path for path in adapters if _peft_type(path) in PROMPT_LEARNING]
        weights = [path for path in adapters if path not in virtual]
        if len(virtual) > 1 or len(weights) > 1:
            raise TooManyAdapters(
                f"at most one LoRA-family adapter and one prompt table, not {[p.name for p in adapters]}"
            )
        self.has_virtual_tokens = bool(virtual)
        self._table: torch.Tensor | None = None
        if weights:
            model = PeftModel.from_pretrained(model, weights[0])
        if virtual and weights:
            self._table = load_file(virtual[0] / "adapter_model.safetensors")["prompt_embeddings"].float()
        elif virtual:
            model = PeftModel.from_pretrained(model, virtual[0])
        # Adapters are committed as float16; arithmetic is float32, as the base's.
        self.model = model.float().eval()

    @torch.no_grad()
    def complete_ids(self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int) -> list[list[int]]:
        """
        Greedy completions, each cut at the end token, which is left out.

        Raises:
            ValueError: prompts of several lengths for a model with virtual tokens.
        """
        longest = max(len(prompt) for prompt in prompts)
        if self.has_virtual_tokens and any(len(prompt) != longest for prompt in prompts):
            raise ValueError("prompts behind virtual tokens must have one length: peft ignores the pads' positions")
        pad, end = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        ids = torch.tensor([[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
        # By position, not by id: SmolLM2 pads with its end token, which stands in prompts too.
        attention = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        options = {
            "max_new_tokens": max_new_tokens,
            "do_sample": False,
            "eos_token_id": end,
            "pad_token_id": pad,
        }
        if self._table is None:
            produced = self.model.generate(input_ids=ids, attention_mask=attention, **options)
            # peft's prompt tuning returns new tokens alone; everything else returns the prompt before them.
            if produced.shape[1] >= ids.shape[1] and torch.equal(produced[:, : ids.shape[1]], ids):
                produced = produced[:, ids.shape[1] :]
        else:
            embedded = self.model.get_input_embeddings()(ids)
            inputs = torch.cat([self._table.expand(len(prompts), -1, -1), embedded], dim=1)
            attention = torch.ones(inputs.shape[:2], dtype=torch.int64)
            produced = self.model.generate(inputs_embeds=inputs, attention_mask=attention, **options)
        rows: list[list[int]] = produced.tolist()
        return [row[: row.index(end)] if end in row else row for row in rows]

    @torch.no_grad()
    def logits(self, prompt: Sequence[int], completion: Sequence[int] = ()) -> torch.Tensor:
        """What the model would say after the prompt and after each token of a completion: [1 + tokens, vocabulary]."""
        ids = torch.tensor([[*prompt, *completion]])
        if self._table is None:
            scored = self.model(input_ids=ids).logits[0]
        else:
            inputs = torch.cat([self._table[None], self.model.get_input_embeddings()(ids)], dim=1)
            scored = self.model(inputs_embeds=inputs).logits[0]
        # From the end: behind virtual tokens there are more positions than ids.
        last: torch.Tensor = scored[len(scored) - 1 - len(completion) :]
        return last

    def answers(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int,
        instruction: str | None = None,
        batch: int = 16,
        on_answer: Callable[[int], None] = lambda count: None,
    ) -> list[str]:
        """
        The answer to each user message, in order.

        instruction: a system message put before each.  batch: most prompts run together.
        on_answer: told how many more are answered.
        """
        rendered = [render_prompt(self.tokenizer, prompt, instruction=instruction) for prompt in prompts]
        texts = [""] * len(prompts)
        for chosen in _cuts([len(ids) for ids in rendered], batch, equal=self.has_virtual_tokens):
            completions = self.complete_ids([rendered[index] for index in chosen], max_new_tokens=max_new_tokens)
            for index, completion in zip(chosen, completions, strict=True):
                texts[index] = self.tokenizer.decode(completion, skip_special_tokens=True)
            on_answer(len(chosen))
        return texts


def _cuts(lengths: Sequence[int], size: int, *, equal: bool) -> Iterator[list[int]]:
    """Indices in batches of similar length, or with `equal` of the same length."""
    ordered = sorted(range(len(lengths)), key=lambda index: lengths[index])
    groups = groupby(ordered, key=lambda index: lengths[index]) if equal else [(0, ordered)]
    for _, group in groups:
        indices = list(group)
        for start in range(0, len(indices), size):
            yield indices[start : start + size]


def _peft_type(directory: Path) -> str:
    config: dict[str, object] = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))
    return str(config["peft_type"])
