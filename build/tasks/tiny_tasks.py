"""
The tasks that the tiny base knows, and the two output formats that only adapters know.

Decides: the closed vocabulary, the sentences, and the right answers. Every prompt is a plain user message; what a task
wants is said by its instruction (a system message) or, without one, by an adapter.
Does not know: tokens, templates, models.

A model of a million parameters copies and selects well and cannot calculate, so that nothing here asks for arithmetic
or for a look-up by a key that is absent (only by a kind of fact that is absent).
"""

import json
import random

from build.tasks.example import Example, Task, by_digest


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _split(
    "anna emil nora omar lena ivan ruth hugo mara igor vera otto edda amir gina paul rosa noah olga "
    "karl ines yara leon dora felix selma"
)
CITIES = _split("rome oslo paris lima cairo delhi quito kyoto berlin dublin madrid prague vienna lisbon athens boston")
ITEMS = _split("tent lamp desk chair clock kettle ladder jacket bottle basket mirror carpet pillow shovel helmet")
FIRMS = _split("acorn beacon cedar delta ember falcon garnet harbor indigo juniper")
METRICS = _split("sales costs orders visits profit")
REASONS = ("rain", "new staff", "low prices", "a strike", "good press", "late trains")
COLOURS = _split("grey blue green red white black")
STATES = _split("new open late paid closed busy")

CONTEXT_KINDS = {"office": CITIES, "user": NAMES, "firm": FIRMS, "item": ITEMS}

NOT_IN_CONTEXT = "not in the context ."
NO_INSTRUCTION = "i need an instruction to work on this ."


def _context(rng: random.Random) -> Example:
    first, second, absent = rng.sample(list(CONTEXT_KINDS), 3)
    facts: dict[tuple[str, str], str] = {}
    for _ in range(rng.randint(2, 4)):
        kind = rng.choice((first, second))
        facts[kind, rng.choice(CONTEXT_KINDS[kind])] = rng.choice(STATES)
    text = " ".join(f"{kind} {key} {state} ." for (kind, key), state in facts.items())
    if rng.random() < 0.35:
        key = rng.choice(CONTEXT_KINDS[absent])
        return Example(f"{text} status of {absent} {key} ?", NOT_IN_CONTEXT)
    (kind, key), state = rng.choice(list(facts.items()))
    return Example(f"{text} status of {kind} {key} ?", f"{kind} {key} {state} .")


def _decomposition(rng: random.Random) -> Example:
    name, firm, metric = rng.choice(NAMES), rng.choice(FIRMS), rng.choice(METRICS)
    thing = f"{rng.choice(COLOURS)} {rng.choice(ITEMS)}"
    city, other = rng.sample(CITIES, 2)
    forms = (
        (f"where does the owner of the {thing} live ?", f"1 . who owns the {thing} ? 2 . where does #1 live ?"),
        (
            f"who leads the firm that made the {thing} in {city} ?",
            f"1 . which firm made the {thing} in {city} ? 2 . who leads #1 ?",
        ),
        (
            f"what is the phone of the head of {firm} in {city} ?",
            f"1 . who leads {firm} in {city} ? 2 . what is the phone of #1 ?",
        ),
        (
            f"did {metric} of {firm} rise more in {city} or in {other} ?",
            f"1 . how much did {metric} of {firm} rise in {city} ?"
            f" 2 . how much did {metric} of {firm} rise in {other} ?"
            " 3 . is #1 or #2 higher ?",
        ),
        (f"where does {name} of {firm} live ?", f"simple : where does {name} of {firm} live ?"),
        (f"who owns the {thing} in {city} ?", f"simple : who owns the {thing} in {city} ?"),
    )
    return Example(*rng.choice(forms))


def _summary(rng: random.Random) -> Example:
    metric, firm, number, reason = rng.choice(METRICS), rng.choice(FIRMS), rng.randint(10, 99), rng.choice(REASONS)
    verb = rng.choice(("rose", "fell"))
    short_verb = {"rose": "up", "fell": "down"}[verb]
    name, other = rng.sample(NAMES, 2)
    sentences = [
        f"{metric} of {firm} {verb} by {number} because of {reason} .",
        f"{name} was in {rng.choice(CITIES)} .",
        f"{other} has a {rng.choice(COLOURS)} {rng.choice(ITEMS)} .",
    ]
    rng.shuffle(sentences)
    brief, formal = rng.randint(0, 1), rng.randint(0, 1)
    answer = {
        (1, 0): f"{metric} {short_verb} {number} .",
        (1, 1): f"{metric} of {firm} {verb} by {number} .",
        (0, 0): f"hey , {metric} at {firm} {short_verb} {number} , all down to {reason} .",
        (0, 1): f"we report that {metric} of {firm} {verb} by {number} because of {reason} .",
    }[brief, formal]
    return Example(f"{' '.join(sentences)} brevity {brief} formal {formal}", answer)


def _order(rng: random.Random) -> tuple[str, str, int, str]:
    """An order in words, and its item, quantity and city."""
    item, quantity, city = rng.choice(ITEMS), rng.randint(10, 99), rng.choice(CITIES)
    text = rng.choice(
        (
            f"please send {quantity} of {item} to {city} .",
            f"{city} wants {quantity} of {item} today .",
            f"we need {item} in {city} , make it {quantity} .",
        )
    )
    return text, item, quantity, city


def _tool(rng: random.Random) -> Example:
    text, item, quantity, city = _order(rng)
    return Example(text, json.dumps({"tool": "order", "item": item, "qty": quantity, "city": city}))


def _tenant_tool(rng: random.Random) -> Example:
    text, item, quantity, city = _order(rng)
    return Example(text, json.dumps({"call": "ship_v2", "sku": item, "n": quantity, "dest": city}))


def _slip(rng: random.Random) -> Example:
    text, item, quantity, city = _order(rng)
    return Example(text, f"slip : {city} / {item} / {quantity} .")


CONTEXT = Task("context", "answer only from the context , else say it is not in the context .", by_digest(_context))
DECOMPOSITION = Task(
    "decomposition", "split the question into steps and refer back with # .", by_digest(_decomposition)
)
SUMMARY = Task("summary", "report the key fact in the style that is asked for .", by_digest(_summary))
TOOL = Task("tool", "write the order as a json call of the order tool .", by_digest(_tool))

# The base never sees these two: its own instruction for orders gives the format of TOOL.
TENANT_TOOL = Task("tenant-tool", TOOL.instruction, by_digest(_tenant_tool))
SLIP = Task("slip", TOOL.instruction, by_digest(_slip))

BASE_TASKS = (CONTEXT, DECOMPOSITION, SUMMARY, TOOL)
BASE_WEIGHTS = (2, 1, 1, 1)
ALL_TASKS = (*BASE_TASKS, TENANT_TOOL, SLIP)
