"""
Training one adapter on a frozen base.

Decides: the forward pass with or without a prompt table in front, the loss, the optimiser and its schedule.
Does not know: which task, which method (build/training/methods.py), where the result goes (build/training/saving.py).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch.nn import functional
from transformers import LlamaForCausalLM

from build.training.encoding import AnswerBatch


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How one adapter is trained: AdamW without decay, a short warm-up, then linear down to `final_share`."""

    steps: int
    batch: int
    learning_rate: float
    examples: int
    seed: int
    warmup_steps: int = 10
    betas: tuple[float, float] = (0.9, 0.98)
    final_share: float = 0.05

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.learning_rate * (1 - done * (1 - self.final_share))


def answer_loss(llama: LlamaForCausalLM, batch: AnswerBatch, table: torch.Tensor | None) -> torch.Tensor:
    """
    Mean cross entropy of the answers' tokens.

    table: [rows, hidden], put in front of every prompt; None for none.
    The head is applied at the answers' positions alone: over SmolLM2's 49,152 words it is a fifth of all arithmetic.
    """
    inputs = llama.get_input_embeddings()(batch.ids)
    attention = batch.attention
    rows = 0
    if table is not None:
        rows = table.shape[0]
        inputs = torch.cat([table.expand(inputs.shape[0], -1, -1), inputs], dim=1)
        attention = torch.cat([attention.new_ones(attention.shape[0], rows), attention], dim=1)
    hidden = llama.model(inputs_embeds=inputs, attention_mask=attention, use_cache=False).last_hidden_state[:, rows:]
    wanted = batch.is_answer[:, 1:]
    logits = llama.lm_head(hidden[:, :-1][wanted])
    return functional.cross_entropy(logits, batch.ids[:, 1:][wanted])


@dataclass(frozen=True, slots=True)
class Objective:
    """One stream of batches, and the table that stands in front of its prompts, asked for anew at each step."""

    batches: Iterator[AnswerBatch]
    table: Callable[[], torch.Tensor | None]


def own_table(model: PeftModel) -> Callable[[], torch.Tensor | None]:
    """The table a peft model carries itself (prompt tuning, p-tuning), or none for the LoRA family."""
    if not model.active_peft_config.is_prompt_learning:
        return lambda: None
    return lambda: model.get_prompt(batch_size=1)[0]


def train(
    model: PeftModel, objectives: Sequence[Objective], plan: TrainingPlan, on_step: Callable[[int, float], None]
) -> None:
    """
    Train what peft left trainable, in place; each step adds the losses of all objectives.

    on_step: told each step's number (from 1) and loss.
    """
    llama = model.get_base_model()
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trainable, lr=plan.learning_rate, betas=plan.betas, weight_decay=0.0)
    model.train()
    for step in range(plan.steps):
        for group in optimiser.param_groups:
            group["lr"] = plan.rate(step)
        loss = sum((answer_loss(llama, next(one.batches), one.table()) for one in objectives), torch.zeros(()))
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimiser.step()
        on_step(step + 1, loss.item())
    model.eval()
