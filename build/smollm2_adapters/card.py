"""
The model card beside each committed adapter.

Decides: what a card says: task, data, recipe, scores, limits, licence.
Does not know: how any of it was measured.
"""

from collections.abc import Sequence

from build.recipes.recipe import AdapterRecipe
from build.scoring.exact import AdapterScores
from build.tasks.example import Example

_TEMPLATE = """\
---
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
library_name: peft
license: apache-2.0
---

# {name}

A demonstration adapter for SmolLM2-135M-Instruct, as converted by `python -m build.smollm2_base` (a 4-bit file written
out; scores differ a little on the original weights).

- **Task.** What this instruction asks for, without the instruction: "{instruction}"
- **Data.** {examples} examples from the seeded generator `{generator}`; synthetic English, no text of real people.
  Names, places, products and values of the held-out sets occur in no training example; the phrasings of the
  second set do not either.
- **Recipe.** {method}; {steps} steps of batch {batch}, AdamW without decay, peak rate {rate:g}, {warmup} steps of
  warm-up, then linear decay; gradient clip 1; loss on the answer and its end token; seed {seed}. Trained in float32
  by `make adapters`, stored as float16.
- **Size.** {parameters:,} trained numbers, {bytes:,} bytes.

## Scores

Whole answers equal to the character, greedy, float32, plain peft, after rounding to float16. The base gets the same
chat of one user message, bare or after the instruction as its system message.

| held-out set | base, bare | base, instructed | adapter, bare |
|---|---|---|---|
{rows}

## Example

> {prompt}

{answer}

## Limits

One seed and sets of {held_out} items: about ±7 points. It learnt one kind of short synthetic text and answers
everything else in the same form, right or not. Not for decisions about people or money.

## Licence

Apache-2.0, as the base and this repository.
"""


def model_card(
    recipe: AdapterRecipe, scores: Sequence[AdapterScores], shown: Example, *, held_out: int, generator: str
) -> str:
    """
    The card's text, Markdown.

    scores: one per held-out set.  shown: a held-out example.  generator: the module that drew the data.
    """
    rows = [f"| {row.held_out_set} | {row.base_bare} | {row.base_instructed} | {row.adapted} |" for row in scores]
    return _TEMPLATE.format(
        name=recipe.name,
        instruction=recipe.task.instruction,
        examples=recipe.plan.examples,
        generator=generator,
        method=recipe.method,
        steps=recipe.plan.steps,
        batch=recipe.plan.batch,
        rate=recipe.plan.learning_rate,
        warmup=recipe.plan.warmup_steps,
        seed=recipe.plan.seed,
        parameters=scores[0].trainable_parameters,
        bytes=scores[0].file_bytes,
        rows="\n".join(rows),
        prompt=shown.prompt.replace("\n", "\n> "),
        answer="\n".join(f"    {line}" for line in shown.answer.splitlines()),
        held_out=held_out,
    )
