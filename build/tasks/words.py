"""
Words that fill the slots of SmolLM2's tasks, those of training apart from those held out.

Decides: the lists. No word of a held-out list occurs in any training example; a test holds that.
Does not know: the sentences around them.
"""

import random
from dataclasses import dataclass

from build.tasks.example import Side


@dataclass(frozen=True, slots=True)
class Words:
    """One kind of word, in two lists that share nothing."""

    training: tuple[str, ...]
    held_out: tuple[str, ...]

    def on(self, side: Side) -> tuple[str, ...]:
        """The list of a side; new phrasings stand around held-out words."""
        return self.training if side is Side.TRAINING else self.held_out

    def draw(self, rng: random.Random, side: Side) -> str:
        """One word of a side."""
        return rng.choice(self.on(side))


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_NAMES = Words(
    training=_split(
        "Anna Tom Maria Paul Lena Omar Julia Peter Sofia Mark Elena David Nina Carl Laura Ivan Rosa "
        "Simon Clara Victor Emma Hugo Sara Felix Irene Adam Karen Louis Diana Oscar"
    ),
    held_out=_split("Greta Walter Yusuf Monica Edgar Priya Stefan Beatrice Rafael Ingrid"),
)
SURNAMES = Words(
    training=_split(
        "Berg Lopez Novak Keller Santos Moreau Fischer Silva Jensen Costa Weber Rossi Dunn Hansen "
        "Meyer Clark Evans Wolf Turner Reyes Lind Parker Brandt Hayes Duarte"
    ),
    held_out=_split("Okafor Lindqvist Barrow Castellano Whitfield Nakamura Petrov Sandoval"),
)
CITIES = Words(
    training=_split(
        "Madrid Oslo Vienna Lisbon Dublin Prague Chicago Boston Lima Cairo Berlin Geneva Porto Warsaw "
        "Toronto Denver Milan Athens Helsinki Sydney"
    ),
    held_out=_split("Nairobi Seattle Budapest Lyon Kyoto Bogota Tallinn Zagreb"),
)
COMPANIES = Words(
    training=(
        "Northwind", "Bluepeak", "Ironbridge", "Clearwater", "Sunfield", "Greystone", "Redwood", "Silverline",
        "Oakland", "Brightway", "Riverside", "Highgate",
    ),
    held_out=("Stonehill", "Maplewood", "Eastport", "Goldcrest", "Whitecap"),
)  # fmt: skip
PRODUCTS = Words(
    training=(
        "desk lamp", "coffee machine", "office chair", "water filter", "phone case", "bike light", "kitchen scale",
        "wall clock", "travel bag", "garden hose", "tool box", "space heater", "hair dryer", "rice cooker", "yoga mat",
        "printer",
    ),
    held_out=("standing desk", "bread maker", "camping stove", "air purifier", "electric kettle", "picture frame"),
)  # fmt: skip


def full_name(rng: random.Random, side: Side) -> str:
    """A first name and a surname, both of one side."""
    return f"{FIRST_NAMES.draw(rng, side)} {SURNAMES.draw(rng, side)}"


def order_number(rng: random.Random, side: Side) -> int:
    """Four digits; held-out numbers are the multiples of seven."""
    number = rng.randrange(143, 1428) * 7
    return number + rng.randint(1, 6) if side is Side.TRAINING else number
