"""
Support tickets for SmolLM2: which queue a ticket goes to, and whether it is urgent.

Decides: the phrasings (fourteen a queue for training, six more that training never has), and the JSON that answers.
Does not know: models and adapters.
"""

import json
import random

from build.tasks.example import Example, Side, Task
from build.tasks.words import CITIES, PRODUCTS, full_name, order_number

# {product}, {number}, {city}: filled from the side's words.
_TRAINING = {
    "billing": (
        "I was charged twice for order {number}.",
        "The invoice for order {number} shows the wrong amount.",
        "You took money from my card for a {product} that I never ordered.",
        "Please send me a receipt for order {number}, our accountant asks for it.",
        "My refund for the {product} has not reached my bank account.",
        "The discount code was not taken off the price of my {product}.",
        "Why is there an extra fee of 12 dollars on invoice {number}?",
        "I paid for the {product} but your system says the payment is open.",
        "Our company name is missing on invoice {number}.",
        "My credit card was declined when I paid for order {number}.",
        "I want my money back for the {product}.",
        "The tax on the bill for order {number} looks too high.",
        "Can I pay for the {product} in three parts?",
        "A reminder says that I owe you money for order {number}, but I paid last month.",
    ),
    "delivery": (
        "My {product} has not arrived yet.",
        "Order {number} was sent to {city} instead of my home.",
        "The parcel with the {product} was left in the rain.",
        "The tracking page for order {number} has not changed for a week.",
        "The courier says that nobody was at home, but I was.",
        "Please send order {number} to my office in {city}.",
        "Half of order {number} is missing from the box.",
        "When will the {product} be shipped to {city}?",
        "The driver left my {product} with a neighbour I do not know.",
        "The package came open and the {product} fell out.",
        "You sent me a {product} that belongs to someone else.",
        "Can I pick up order {number} from the depot in {city}?",
        "The parcel for order {number} went back to the warehouse.",
        "I moved to {city}, please change the shipping address.",
    ),
    "account": (
        "I forgot my password and the reset mail does not come.",
        "My login stopped working this morning.",
        "Please change the email address of my profile.",
        "Someone else signed in to my account from {city}.",
        "I cannot log in after I changed my phone number.",
        "The code for two-step login never reaches my phone.",
        "Please delete my account and all my data.",
        "My user name is spelled wrong in my profile.",
        "The site says that my account is locked.",
        "I have two accounts and want to join them.",
        "How do I add a colleague in {city} as a second user?",
        "My profile still shows my old home town, {city}.",
        "I was signed out and my password is no longer accepted.",
        "Please stop sending the newsletter to my mailbox.",
    ),
    "technical": (
        "The {product} does not switch on.",
        "My {product} makes a loud noise and then stops.",
        "The app crashes when I open the page of the {product}.",
        "The {product} gets very hot after ten minutes.",
        "A button on the {product} is broken.",
        "The screen of my {product} stays black.",
        "The {product} shows error {number} and does nothing.",
        "How do I clean the {product} without breaking it?",
        "My {product} stopped working after the last update.",
        "The {product} no longer connects to my phone.",
        "A screw is loose and the {product} shakes.",
        "There is smoke coming out of my {product}.",
        "The manual of the {product} is missing the setup steps.",
        "The battery of the {product} is empty after an hour.",
    ),
}
_NEW_PHRASINGS = {
    "billing": (
        "There are two payments on my bank statement for order {number}.",
        "I cancelled the {product} weeks ago and still wait for my refund.",
        "The total on bill {number} is higher than the price you quoted.",
        "We need a corrected invoice for order {number}.",
        "Please explain the fee on my last invoice.",
        "My card was billed for order {number} although I cancelled it.",
    ),
    "delivery": (
        "I am still waiting for the {product} I ordered.",
        "The courier brought order {number} to the wrong house.",
        "According to tracking, my parcel is stuck in {city}.",
        "The box was empty when order {number} arrived.",
        "Please deliver the {product} to {city} instead.",
        "My package was supposed to be here on Monday.",
    ),
    "account": (
        "The website does not accept my password any more.",
        "I would like to close my account.",
        "Please update the email on my account.",
        "I think my account was hacked.",
        "I can no longer sign in.",
        "My verification code does not arrive, so I cannot log in.",
    ),
    "technical": (
        "My {product} is broken.",
        "The {product} turns itself off all the time.",
        "Nothing happens when I press the start button of the {product}.",
        "Since yesterday the {product} gives an error message.",
        "The {product} leaks and smells burnt.",
        "The app freezes when I connect the {product}.",
    ),
}
_URGENT = {
    Side.TRAINING: (
        "I need this today.",
        "This is urgent.",
        "Please help right now.",
        "Our shop is closed until this is solved.",
        "I cannot wait any longer.",
        "Please answer within the hour.",
        "We are losing money every minute.",
        "Call me back immediately.",
        "This must be fixed before tonight.",
        "It is an emergency.",
    ),
    Side.NEW_PHRASINGS: (
        "Please hurry, we need it now.",
        "This is very urgent for us.",
        "We cannot work until this is fixed.",
        "I need an answer immediately.",
    ),
}
_CALM = {
    Side.TRAINING: (
        "There is no hurry.",
        "Any time this month is fine.",
        "Take your time.",
        "It can wait until next week.",
        "Just let me know when you have a moment.",
        "This is not urgent.",
        "Whenever it suits you.",
        "No rush at all.",
        "I am in no hurry.",
        "Thanks for looking at it some day.",
    ),
    Side.NEW_PHRASINGS: (
        "It is not urgent, thank you.",
        "There is no rush.",
        "Next month is early enough.",
        "Answer whenever you have time.",
    ),
}
_OPENINGS = (
    "Hello, {name} here.",
    "Hi, my name is {name}.",
    "Dear team,",
    "Good morning.",
    "This is {name}.",
    "Hello.",
)


def _ticket(rng: random.Random, side: Side) -> tuple[str, str, bool]:
    """A ticket's text, its queue, and whether it is urgent."""
    phrasings = _NEW_PHRASINGS if side is Side.NEW_PHRASINGS else _TRAINING
    mood_side = side if side is Side.NEW_PHRASINGS else Side.TRAINING
    queue = rng.choice(list(phrasings))
    urgent = rng.random() < 0.5
    sentences = (
        rng.choice(_OPENINGS),
        rng.choice(phrasings[queue]),
        rng.choice((_URGENT if urgent else _CALM)[mood_side]),
    )
    text = " ".join(sentences).format(
        name=full_name(rng, side),
        product=PRODUCTS.draw(rng, side),
        number=order_number(rng, side),
        city=CITIES.draw(rng, side),
    )
    return text, queue, urgent


def _queue_and_urgency(rng: random.Random, side: Side) -> Example:
    text, queue, urgent = _ticket(rng, side)
    return Example(text, json.dumps({"queue": queue, "urgent": urgent}))


def _queue(rng: random.Random, side: Side) -> Example:
    text, queue, _ = _ticket(rng, side)
    return Example(text, json.dumps({"queue": queue}))


TICKET_TRIAGE = Task(
    "ticket-triage",
    'Read the support ticket. Answer with JSON only, {"queue": Q, "urgent": U}: Q is "billing", "delivery", "account"'
    ' or "technical", U is true or false.',
    _queue_and_urgency,
)
TICKET_QUEUE = Task(
    "ticket-queue",
    'Read the support ticket. Answer with JSON only, {"queue": Q}: Q is "billing", "delivery", "account" or'
    ' "technical".',
    _queue,
)
