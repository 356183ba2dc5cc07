"""
SmolLM2's demo adapters and profiles.

Decides: method, task and training plan of each, and which tenant has it.
Does not know: how training works.
"""

from build.recipes.recipe import AdapterRecipe, DemoProfile
from build.tasks.questions import DECOMPOSITION
from build.tasks.reports import SUMMARY
from build.tasks.tickets import TICKET_QUEUE, TICKET_TRIAGE
from build.training.adapter import TrainingPlan
from build.training.methods import ALL_LINEAR, ia3, lora, prompt_tuning

HELD_OUT = 48
MAX_NEW_TOKENS = 80


def _plan(steps: int, learning_rate: float, seed: int) -> TrainingPlan:
    # No example twice: each step has new ones.
    return TrainingPlan(
        steps=steps, batch=8, learning_rate=learning_rate, examples=steps * 8, seed=seed, warmup_steps=5
    )


ADAPTERS = (
    AdapterRecipe(
        name="ticket-triage-ia3",
        method="IA3 on k, v and down",
        task=TICKET_TRIAGE,
        plan=_plan(90, 2e-2, 21),
        config=lambda _: ia3(),
    ),
    AdapterRecipe(
        name="ticket-queue-prompt",
        method="prompt tuning, 24 tokens",
        task=TICKET_QUEUE,
        plan=_plan(150, 3e-2, 22),
        config=lambda base: prompt_tuning(virtual_tokens=24, text=TICKET_QUEUE.instruction, base_directory=base),
    ),
    AdapterRecipe(
        name="decomposition-lora",
        method="LoRA r8, 7 projections",
        task=DECOMPOSITION,
        plan=_plan(80, 3e-3, 23),
        config=lambda _: lora(rank=8, alpha=16, modules=ALL_LINEAR),
    ),
    AdapterRecipe(
        name="summary-dora",
        method="DoRA r8, 7 projections",
        task=SUMMARY,
        plan=_plan(120, 1.5e-3, 24),
        config=lambda _: lora(rank=8, alpha=16, modules=ALL_LINEAR, dora=True),
    ),
)

PROFILES = (
    DemoProfile(
        tenant="acme",
        name="support-bot",
        adapters=("ticket-triage-ia3",),
        task=TICKET_TRIAGE,
        description="Says which queue a support ticket goes to and whether it is urgent, as JSON (IA3).",
    ),
    DemoProfile(
        tenant="acme",
        name="ticket-router",
        adapters=("ticket-queue-prompt",),
        task=TICKET_QUEUE,
        description="Says which queue a support ticket goes to, as JSON (prompt tuning, 24 virtual tokens).",
    ),
    DemoProfile(
        tenant="acme",
        name="question-steps",
        adapters=("decomposition-lora",),
        task=DECOMPOSITION,
        description="Splits a question into steps that refer back with [#1] (LoRA of rank 8).",
    ),
    DemoProfile(
        tenant="globex",
        name="report-brief",
        adapters=("summary-dora",),
        task=SUMMARY,
        description="Summarises a report in the asked number of sentences and style (DoRA of rank 8).",
    ),
)
