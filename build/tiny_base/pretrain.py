"""
Training the tiny base from scratch.

Decides: the model's shape, the two phases, the optimiser, and the files of the result.
Does not know: what the tasks say (build/tasks), how adapters are trained (build/training).

Copying is taught first, on random tokens: without that phase no task emerges within minutes.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from build.tiny_base.batches import CopyBatches, WeightedBatch, task_batches
from build.tiny_base.tokenizer import END, MAX_POSITIONS, PAD, START, write_tokenizer


@dataclass(frozen=True, slots=True)
class PretrainingPlan:
    """Steps, batch sizes and rates; the defaults are the recipe that was measured."""

    copy_steps: int = 700
    task_steps: int = 1000
    copy_batch: int = 64
    task_batch: int = 40
    learning_rate: float = 1e-3
    warmup_steps: int = 40
    decay_share: float = 0.45
    final_share: float = 0.04

    @property
    def steps(self) -> int:
        return self.copy_steps + self.task_steps

    def rate(self, step: int) -> float:
        """Learning rate of a step: linear up, flat, linear down over the last `decay_share` of all steps."""
        decay_start = self.steps * (1 - self.decay_share)
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if step < decay_start:
            return self.learning_rate
        done = (step - decay_start) / (self.steps - decay_start)
        return self.learning_rate * (1 - done * (1 - self.final_share))


def new_model(tokenizer: Tokenizer) -> LlamaForCausalLM:
    """A Llama of about 1.1 million parameters with grouped-query attention and tied embeddings, at random."""
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=MAX_POSITIONS,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        initializer_range=0.02,
        bos_token_id=tokenizer.token_to_id(START),
        eos_token_id=tokenizer.token_to_id(END),
        pad_token_id=tokenizer.token_to_id(PAD),
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config)


def weighted_loss(model: LlamaForCausalLM, batch: WeightedBatch) -> torch.Tensor:
    """Mean cross entropy of the next token, weighted."""
    logits = model(input_ids=batch.ids, attention_mask=batch.attention, use_cache=False).logits
    losses = functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch.ids[:, 1:].flatten(), reduction="none")
    weights = batch.weights[:, 1:].flatten()
    return (losses * weights).sum() / weights.sum()


def pretrain(
    tokenizer: Tokenizer, plan: PretrainingPlan, *, seed: int, on_step: Callable[[int, float], None]
) -> LlamaForCausalLM:
    """Train from scratch; `on_step` is told each step's number (from 1) and loss."""
    torch.manual_seed(seed)
    rng = random.Random(f"phases/{seed}")
    model = new_model(tokenizer)
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}],
        lr=plan.learning_rate,
        betas=(0.9, 0.95),
    )
    copies = CopyBatches(tokenizer, seed=seed)
    tasks = task_batches(tokenizer, size=plan.task_batch, seed=seed)
    model.train()
    for step in range(plan.steps):
        if step < plan.copy_steps:
            repeat_share = 0.85 if step < 0.6 * plan.copy_steps else 0.25
            batch = copies.draw(plan.copy_batch, repeat=rng.random() < repeat_share)
        else:
            fading = 0.15 * (1 - (step - plan.copy_steps) / (0.4 * plan.task_steps))
            batch = copies.draw(plan.copy_batch, repeat=rng.random() < 0.25) if rng.random() < fading else next(tasks)
        for group in optimiser.param_groups:
            group["lr"] = plan.rate(step)
        loss = weighted_loss(model, batch)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        on_step(step + 1, loss.item())
    model.eval()
    return model


def write_base(model: LlamaForCausalLM, tokenizer: Tokenizer, directory: Path) -> None:
    """Write a Hugging Face directory: weights in float32, config, generation defaults, tokenizer, chat template."""
    directory.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.token_to_id(START),
        eos_token_id=tokenizer.token_to_id(END),
        pad_token_id=tokenizer.token_to_id(PAD),
        do_sample=False,
    )
    model.save_pretrained(directory)
    # safetensors makes files that only their owner can read.
    (directory / "model.safetensors").chmod(0o644)
    write_tokenizer(tokenizer, directory)
