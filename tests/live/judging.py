"""
Greedy answers beside plain peft's, with the one difference that is allowed: a near tie.

Decides when two different texts are no fault. Rounding depends on the shape of a batch, so where the judge's two best
logits are closer than 1e-3 either token is right, and everything after it is another text.
"""

from dataclasses import dataclass, field

import torch

from build.scoring.plain_peft import PlainPeft
from build.training.encoding import render_prompt

NEAR_TIE = 1e-3


@dataclass
class Verdicts:
    """Same and tied answers, counted and listed; `faults` has to stay empty."""

    same: int = 0
    ties: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def compare(self, judge: PlainPeft, prompt: str, served: str, expected: str) -> None:
        if served == expected:
            self.same += 1
            return
        text = f"{prompt!r}: served {served!r}, plain peft {expected!r}"
        (self.ties if _near_tie(judge, prompt, served, expected) else self.faults).append(text)


def _near_tie(judge: PlainPeft, prompt: str, served: str, expected: str) -> bool:
    ids = [judge.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (served, expected)]
    end = judge.tokenizer.eos_token_id
    left, right = ([*tokens, end] for tokens in ids)
    differing = (index for index, (a, b) in enumerate(zip(left, right, strict=False)) if a != b)
    shared = next(differing, min(len(left), len(right)))
    rendered = [*render_prompt(judge.tokenizer, prompt), *right[:shared]]
    best = torch.topk(judge.logits(rendered)[-1], 2).values
    return bool(best[0] - best[1] < NEAR_TIE)
