"""
API keys: a typo is seen before anything is looked up, and a stored hash verifies one secret only.
"""

import hmac
import string

import pytest

from gateway.domain import keys
from gateway.domain.keys import hash_secret, matches, new_key, parse_key

PEPPER = "a pepper of the tests"
ALPHABET = string.digits + string.ascii_letters


def test_a_new_key_is_parsed_and_matches_its_own_hash():
    for _ in range(200):
        key = new_key(PEPPER)
        presented = parse_key(key.text)
        assert presented is not None
        assert presented.id == key.id
        assert matches(presented, key.hash, PEPPER)
        assert presented.secret not in key.hash


def test_no_two_keys_are_alike():
    made = [new_key(PEPPER) for _ in range(200)]
    assert len({key.text for key in made}) == len({key.id for key in made}) == len({key.hash for key in made}) == 200


def test_every_single_typo_is_seen():
    text = new_key(PEPPER).text
    for place in range(4, len(text)):
        if text[place] == "_":
            continue
        wrong = ALPHABET[(ALPHABET.index(text[place]) + 1) % len(ALPHABET)]
        assert parse_key(text[:place] + wrong + text[place + 1 :]) is None, place


def test_two_characters_that_changed_places_are_seen():
    text = new_key(PEPPER).text
    for place in range(18, len(text) - 1):
        swapped = text[:place] + text[place + 1] + text[place] + text[place + 2 :]
        assert swapped == text or parse_key(swapped) is None, place


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda key: key[:-1], id="one character short"),
        pytest.param(lambda key: key + "0", id="one too many"),
        pytest.param(lambda key: key + "\n", id="with a line's end"),
        pytest.param(lambda key: " " + key, id="after a space"),
        pytest.param(lambda key: key.replace("tlr_", "sk-_"), id="of somebody else's make"),
        pytest.param(lambda key: key.replace("tlr_", "TLR_"), id="with a shouted prefix"),
        pytest.param(lambda key: key[:4] + "٣" + key[5:], id="with a digit of another script"),
        pytest.param(lambda key: "", id="empty"),
        pytest.param(lambda key: "tlr_" + "x" * 100_000, id="very long"),
        pytest.param(lambda key: key.replace("_", "\x00"), id="with zero bytes"),
    ],
)
def test_what_is_no_key(change):
    assert parse_key(change(new_key(PEPPER).text)) is None


def test_a_hash_verifies_neither_another_secret_nor_under_another_pepper():
    one, other = new_key(PEPPER), new_key(PEPPER)
    presented = parse_key(one.text)
    assert presented is not None
    assert not matches(presented, other.hash, PEPPER)
    assert not matches(presented, one.hash, PEPPER + "!")
    assert not matches(presented, "", PEPPER)
    assert not matches(presented, one.hash.upper(), PEPPER)


def test_hashes_are_hmac_sha256_in_hexadecimal():
    assert hash_secret("secret", "pepper") == hmac.new(b"pepper", b"secret", "sha256").hexdigest()


def test_hashes_are_compared_in_constant_time(monkeypatch):
    compared = []

    def compare(one: str, other: str) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(keys.hmac, "compare_digest", compare)
    key = new_key(PEPPER)
    presented = parse_key(key.text)
    assert presented is not None
    assert matches(presented, key.hash, PEPPER)
    assert not matches(presented, "0" * 64, PEPPER)
    assert compared == [(key.hash, key.hash), (key.hash, "0" * 64)]
