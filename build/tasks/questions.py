"""
Question decomposition for SmolLM2: a question into steps that refer back with [#1].

Decides: the relations (some only for held-out phrasings), how a question names them, and the steps.
Does not know: models and adapters.
"""

import random

from build.tasks.example import Example, Side, Task
from build.tasks.words import CITIES, COMPANIES, full_name

# What a person leads to: as part of a longer question, and as a question of its own.
_FROM_PERSON = {
    Side.TRAINING: (
        ("city", "the city where {x} was born", "In which city was {x} born?"),
        ("city", "the city where {x} lives", "In which city does {x} live?"),
        ("city", "the home town of {x}", "What is the home town of {x}?"),
        ("company", "the company that {x} works for", "Which company does {x} work for?"),
        ("company", "the company that {x} founded", "Which company did {x} found?"),
        ("company", "the employer of {x}", "Who is the employer of {x}?"),
        ("person", "the teacher of {x}", "Who is the teacher of {x}?"),
        ("person", "the sister of {x}", "Who is the sister of {x}?"),
        ("person", "the manager of {x}", "Who is the manager of {x}?"),
    ),
    Side.NEW_PHRASINGS: (
        ("city", "the city where {x} went to school", "In which city did {x} go to school?"),
        ("company", "the company that {x} sold", "Which company did {x} sell?"),
        ("person", "the brother of {x}", "Who is the brother of {x}?"),
    ),
}
# What is asked about it.
_ABOUT: dict[Side, dict[str, tuple[str, ...]]] = {
    Side.TRAINING: {
        "city": (
            "Who is the mayor of {x}?",
            "What is the population of {x}?",
            "Which river runs through {x}?",
            "How old is the oldest church in {x}?",
            "What is the largest park in {x}?",
        ),
        "company": (
            "Who leads {x}?",
            "When was {x} founded?",
            "How many people work at {x}?",
            "What does {x} sell?",
            "Where is the main office of {x}?",
        ),
        "person": (
            "How old is {x}?",
            "Where does {x} live?",
            "What is the phone number of {x}?",
            "Which language does {x} speak?",
        ),
    },
    Side.NEW_PHRASINGS: {
        "city": ("What is the largest museum in {x}?", "When was {x} founded?"),
        "company": ("Who owns {x}?", "How many cars does {x} sell?"),
        "person": ("When was {x} born?", "Where does {x} work?"),
    },
}
_COMPARED: dict[Side, tuple[tuple[str, str, str, str], ...]] = {
    Side.TRAINING: (
        ("city", "Which city is larger, {a} or {b}?", "How large is {x}?", "Which is larger, [#1] or [#2]?"),
        ("city", "Which city is older, {a} or {b}?", "How old is {x}?", "Which is older, [#1] or [#2]?"),
        ("company", "Did {a} earn more than {b}?", "How much did {x} earn?", "Is [#1] more than [#2]?"),
    ),
    Side.NEW_PHRASINGS: (
        ("company", "Which company is older, {a} or {b}?", "How old is {x}?", "Which is older, [#1] or [#2]?"),
        ("city", "Which city is richer, {a} or {b}?", "How rich is {x}?", "Which is richer, [#1] or [#2]?"),
    ),
}
_LISTS = {"city": CITIES, "company": COMPANIES}


def _steps(*questions: str) -> str:
    return "\n".join(f"{number}. {question}" for number, question in enumerate(questions, start=1))


def _compare(rng: random.Random, side: Side, words_side: Side) -> Example:
    kind, question, part, last = rng.choice(_COMPARED[side])
    first, second = rng.sample(_LISTS[kind].on(words_side), 2)
    return Example(question.format(a=first, b=second), _steps(part.format(x=first), part.format(x=second), last))


def _question(rng: random.Random, side: Side) -> Example:
    phrasing_side = Side.NEW_PHRASINGS if side is Side.NEW_PHRASINGS else Side.TRAINING
    shape = rng.random()
    if shape < 0.2:
        return _compare(rng, phrasing_side, side)
    kind, inside, alone = rng.choice(_FROM_PERSON[phrasing_side])
    person = full_name(rng, side)
    if shape < 0.35:
        # Nothing to take apart: one step, the question itself.
        question = alone.format(x=person)
        return Example(question, _steps(question))
    about = rng.choice(_ABOUT[phrasing_side][kind])
    return Example(about.format(x=inside.format(x=person)), _steps(alone.format(x=person), about.format(x="[#1]")))


DECOMPOSITION = Task(
    "decomposition",
    "Split the question into numbered steps, one simple question each. Write [#1] for the answer of step 1, [#2] for"
    " the answer of step 2. A question that is simple already is its only step. Write nothing else.",
    _question,
)
