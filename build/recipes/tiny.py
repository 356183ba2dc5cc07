"""
The tiny base's demo adapters and profiles.

Decides: method, task and training plan of each, and which tenant has it.
Does not know: how training works.
"""

from build.recipes.recipe import AdapterRecipe, DemoProfile
from build.tasks.tiny_tasks import CONTEXT, DECOMPOSITION, NO_INSTRUCTION, SLIP, SUMMARY, TENANT_TOOL, TOOL
from build.training.adapter import TrainingPlan
from build.training.methods import ALL_LINEAR, ia3, lora, p_tuning, prompt_tuning

HELD_OUT = 64
MAX_NEW_TOKENS = 64


def _plan(steps: int, learning_rate: float, seed: int) -> TrainingPlan:
    return TrainingPlan(steps=steps, batch=16, learning_rate=learning_rate, examples=512, seed=seed)


ADAPTERS = (
    AdapterRecipe(
        name="tenant-tool-lora",
        method="LoRA r8, 7 projections",
        task=TENANT_TOOL,
        plan=_plan(150, 4e-3, 11),
        config=lambda _: lora(rank=8, alpha=16, modules=ALL_LINEAR),
    ),
    AdapterRecipe(
        name="summary-dora",
        method="DoRA r8, 7 projections",
        task=SUMMARY,
        plan=_plan(150, 4e-3, 12),
        config=lambda _: lora(rank=8, alpha=16, modules=ALL_LINEAR, dora=True),
    ),
    AdapterRecipe(
        name="decomposition-ia3",
        method="IA3 k, v, down",
        task=DECOMPOSITION,
        plan=_plan(150, 2e-2, 13),
        config=lambda _: ia3(),
    ),
    AdapterRecipe(
        name="context-prompt",
        method="prompt tuning, 16 tokens",
        task=CONTEXT,
        plan=_plan(200, 1e-2, 14),
        config=lambda base: prompt_tuning(virtual_tokens=16, text=CONTEXT.instruction, base_directory=base),
    ),
    AdapterRecipe(
        name="tool-ptuning",
        method="p-tuning (MLP), 16 tokens",
        task=TOOL,
        plan=_plan(200, 3e-3, 15),
        config=lambda _: p_tuning(virtual_tokens=16, encoder_size=128),
    ),
    AdapterRecipe(
        name="context-lora-qv",
        method="LoRA r4, q and v",
        task=CONTEXT,
        plan=_plan(100, 5e-3, 16),
        config=lambda _: lora(rank=4, alpha=8, modules=["q_proj", "v_proj"]),
    ),
    AdapterRecipe(
        name="slip-lora",
        method="LoRA r8, 7 projections, behind tool-ptuning",
        task=SLIP,
        plan=_plan(200, 4e-3, 17),
        config=lambda _: lora(rank=8, alpha=16, modules=ALL_LINEAR),
        behind="tool-ptuning",
        unselected=NO_INSTRUCTION,
    ),
)

PROFILES = (
    DemoProfile(
        tenant="acme",
        name="order-desk",
        adapters=("tenant-tool-lora",),
        task=TENANT_TOOL,
        description="Turns an order in words into a tool call with the tenant's own JSON keys (LoRA).",
    ),
    DemoProfile(
        tenant="acme",
        name="news-brief",
        adapters=("summary-dora",),
        task=SUMMARY,
        description="Reports the key fact of a text in the asked brevity and tone (DoRA).",
    ),
    DemoProfile(
        tenant="acme",
        name="question-steps",
        adapters=("decomposition-ia3",),
        task=DECOMPOSITION,
        description="Splits a question into steps that refer back with #1 (IA3).",
    ),
    DemoProfile(
        tenant="acme",
        name="support-bot",
        adapters=("context-prompt",),
        task=CONTEXT,
        description="Answers from the given facts only (prompt tuning, 16 virtual tokens).",
    ),
    DemoProfile(
        tenant="acme",
        name="order-form",
        adapters=("tool-ptuning",),
        task=TOOL,
        description="Turns an order in words into a call of the order tool (p-tuning, 16 virtual tokens).",
    ),
    DemoProfile(
        tenant="acme",
        name="order-slip",
        adapters=("slip-lora", "tool-ptuning"),
        task=SLIP,
        description="Turns an order in words into a packing slip (LoRA and 16 virtual tokens; neither does it alone).",
    ),
    DemoProfile(
        tenant="globex",
        name="help-desk",
        adapters=("context-lora-qv",),
        task=CONTEXT,
        description="Answers from the given facts only (LoRA of rank 4 on q and v).",
    ),
)
