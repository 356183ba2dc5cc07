"""
Summaries for SmolLM2, of an asked length and style.

Decides: the reports, the six summaries of each (one to three sentences, formal or casual), and that the attributes
stand at the end of the prompt, where a model of this size heeds them.
Does not know: models and adapters.
"""

import random

from build.tasks.example import Example, Side, Task
from build.tasks.words import CITIES, PRODUCTS, Words, full_name

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
_CAUSES = Words(
    training=(
        "a flat tyre", "heavy snow", "a power cut", "a missing form", "a broken scanner", "a staff shortage",
        "a wrong label", "a fire drill", "a road closure", "a software update", "a strike", "a lost key",
    ),
    held_out=("a burst pipe", "thick fog", "a jammed door", "a customs check", "a wrong postcode"),
)  # fmt: skip
_FIXES = Words(
    training=(
        "hired a second van", "called the supplier", "moved the goods by hand", "ordered new parts", "changed the plan",
        "asked the night shift for help", "sent a technician", "printed new papers", "rented a truck",
    ),
    held_out=("borrowed a forklift", "phoned the head office", "repacked the boxes", "opened a second gate"),
)  # fmt: skip
# How the report says what happened; new phrasings stand in held-out reports only.
_REPORTS = {
    Side.TRAINING: (
        "On {day}, {count} {product}s were late in {city}. The reason was {cause}. {name} {fix}.",
        "{city}, {day}: {count} {product}s came late because of {cause}. To help, {name} {fix}.",
        "Because of {cause}, {count} {product}s reached {city} late on {day}. {name} {fix}.",
        "Report from {city}. {name} {fix} after {cause}. On {day}, {count} {product}s were late.",
    ),
    Side.NEW_PHRASINGS: (
        "{name} writes from {city}: {count} {product}s were delayed on {day}. It was {cause}. {name} {fix}.",
        "In {city} there was {cause} on {day}, so {count} {product}s arrived late. {name} {fix}.",
    ),
}


def _report(rng: random.Random, side: Side) -> Example:
    facts = {
        "name": full_name(rng, side),
        "city": CITIES.draw(rng, side),
        "product": PRODUCTS.draw(rng, side),
        "cause": _CAUSES.draw(rng, side),
        "fix": _FIXES.draw(rng, side),
        "day": rng.choice(_DAYS),
        "count": str(rng.randint(11, 99)),
    }
    length, style = rng.randint(1, 3), rng.choice(("formal", "casual"))
    sentences = {
        "formal": (
            "{count} {product}s were delayed in {city} on {day}.",
            "The cause was {cause}.",
            "In response, {name} {fix}.",
        ),
        "casual": (
            "Heads up: {count} {product}s came late in {city} on {day}!",
            "Blame {cause}.",
            "Luckily {name} {fix}.",
        ),
    }[style][:length]
    phrasing = rng.choice(_REPORTS[Side.NEW_PHRASINGS if side is Side.NEW_PHRASINGS else Side.TRAINING])
    prompt = f"{phrasing}\nlength: {length} style: {style}"
    return Example(prompt.format(**facts), " ".join(sentences).format(**facts))


SUMMARY = Task(
    "summary",
    "Summarise the report in as many sentences as the length says, in the style that is asked for. Say first what was"
    " late, then the cause, then what was done about it.",
    _report,
)
