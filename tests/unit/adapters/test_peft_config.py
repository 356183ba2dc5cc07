"""
Configurations as bytes: what is refused before a setting is read, and what makes two of them the same.
"""

import json

import pytest

from gateway.adapters.peft_config import MAX_CONFIG_BYTES, canonical, kind_of, parse_config, parse_raw
from gateway.adapters.refusal import AdapterRefused, RefusalCode
from tests.unit.adapters.handmade import ia3_config, lora_config, prompt_config

BROKEN = {
    "empty": b"",
    "no JSON": b"{",
    "no object": b"[]",
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "half a surrogate pair": b'{"peft_type": "\\ud800"}',
    "brackets without end": b"[" * 100_000,
    "nested very deep": b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    "a number of a million digits": b'{"r": ' + b"9" * 1_000_000 + b"}",
    "two megabytes": b'{"a": "' + b"x" * (2 << 20) + b'"}',
    "no type": b"{}",
    "a type that is a list": b'{"peft_type": ["LORA"]}',
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_one_sentence(kind: str) -> None:
    with pytest.raises(AdapterRefused) as caught:
        kind_of(parse_raw(BROKEN[kind]))
    assert caught.value.code is RefusalCode.INVALID_CONFIG
    caught.value.message.encode()


def test_the_limit_holds_on_both_sides() -> None:
    rest = len(b'{"a": ""}')
    parse_raw(b'{"a": "' + b"x" * (MAX_CONFIG_BYTES - rest) + b'"}')
    with pytest.raises(AdapterRefused):
        parse_raw(b'{"a": "' + b"x" * (MAX_CONFIG_BYTES - rest + 1) + b'"}')


def test_places_of_a_machine_and_order_are_no_part_of_what_it_is() -> None:
    one = lora_config(base_model_name_or_path="/home/a/base", revision="x")
    other = dict(reversed(lora_config(base_model_name_or_path="C:\\base").items()))
    assert canonical(one) == canonical(other)
    assert canonical(one) != canonical(lora_config(r=9))


def test_kinds() -> None:
    assert kind_of(lora_config()) == kind_of(ia3_config()) == "lora"
    assert kind_of(prompt_config()) == "virtual-tokens"


@pytest.mark.parametrize(
    ("module", "rank", "scaling"),
    [
        ("model.layers.0.self_attn.q_proj", 16, 1.0),
        ("model.layers.1.self_attn.q_proj", 32, 0.5),
        ("model.layers.11.self_attn.q_proj", 16, 1.0),
        ("model.layers.0.self_attn.v_proj", 8, 5.0),
        ("model.layers.0.mlp.down_proj", 8, 2.0),
    ],
)
def test_patterns_match_as_peft_matches_them(module: str, rank: int, scaling: float) -> None:
    """The first pattern that matches the end of the name at a dot; r and alpha apart from each other."""
    config = parse_config(
        lora_config(
            r=8,
            lora_alpha=16,
            rank_pattern={r"layers\.1\.self_attn\.q_proj": 32, "q_proj": 16, "proj": 64},
            alpha_pattern={"v_proj": 40},
        )
    )
    assert config.rank_of(module) == rank
    assert config.scaling(module) == scaling


def test_rslora_divides_by_the_root() -> None:
    config = parse_config(lora_config(r=16, lora_alpha=8, use_rslora=True))
    assert config.scaling("model.layers.0.self_attn.q_proj") == 2.0


def test_options_at_their_defaults_are_no_options() -> None:
    """peft writes every field it knows, also those of methods that are off."""
    off = {"lora_bias": False, "modules_to_save": None, "target_parameters": [], "kasa_config": None, "unheard_of": {}}
    assert parse_config(parse_raw(json.dumps(lora_config(**off)).encode())).rank == 8
