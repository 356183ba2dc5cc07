"""
What the engines are believed to hold: a claim that a miss takes back, unless a newer one is there.
"""

from dataclasses import replace

from gateway.backends.residency import Residency
from tests.unit.domain.making import ENDPOINT, LORA, OTHER


def test_nothing_is_believed_before_it_was_learned():
    assert Residency(8).claim(ENDPOINT, LORA) == 0


def test_a_claim_is_of_one_endpoint_and_one_adapter():
    residency = Residency(8)
    residency.learned(ENDPOINT, LORA, 5)
    assert residency.claim(ENDPOINT, LORA) == 5
    assert residency.claim(OTHER, LORA) == 0
    assert residency.claim(ENDPOINT, replace(LORA, task_id=78)) == 0


def test_a_miss_takes_the_claim_back():
    residency = Residency(8)
    residency.learned(ENDPOINT, LORA, 5)
    residency.missed(ENDPOINT, LORA, 5)
    assert residency.claim(ENDPOINT, LORA) == 0


def test_a_miss_of_an_older_sending_leaves_a_newer_claim():
    residency = Residency(8)
    residency.learned(ENDPOINT, LORA, 6)
    residency.missed(ENDPOINT, LORA, 5)
    assert residency.claim(ENDPOINT, LORA) == 6


def test_the_oldest_claims_are_dropped_at_the_bound():
    residency = Residency(3)
    adapters = [replace(LORA, task_id=number) for number in range(1, 6)]
    for number in (0, 1, 2, 0, 3):
        residency.learned(ENDPOINT, adapters[number], number + 1)
    assert [residency.claim(ENDPOINT, adapter) for adapter in adapters] == [1, 0, 3, 4, 0]
