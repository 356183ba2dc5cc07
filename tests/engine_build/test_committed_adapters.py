"""What is committed of the demo adapters: small, safe, complete, and free of any machine's paths."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from build.console import markdown_table
from build.recipes import smollm2, tiny
from build.recipes.recipe import read_held_out
from build.scoring.demo import BASES, DemoBase, read_profiles
from build.scoring.exact import read_scores
from build.smollm2_base.prepare import BASE_NAME

ADAPTERS = [
    pytest.param(base, recipe.name, name, id=f"{base.name}/{recipe.name}")
    for base, name, recipes in (
        (BASES["tiny"], "tiny", tiny.ADAPTERS),
        (BASES["smollm2"], BASE_NAME, smollm2.ADAPTERS),
    )
    for recipe in recipes
]
EACH_BASE = pytest.mark.parametrize("base", list(BASES.values()), ids=list(BASES))


@pytest.mark.parametrize(("base", "adapter", "base_name"), ADAPTERS)
def test_an_adapter_names_its_base_and_no_path(base: DemoBase, adapter: str, base_name: str) -> None:
    directory = base.artefacts / "adapters" / adapter
    config = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == base_name
    assert config.get("tokenizer_name_or_path") in (None, base_name)
    values = [value for value in config.values() if isinstance(value, str)]
    assert not [value for value in values if value.startswith(("/", "~", "."))]


@pytest.mark.parametrize(("base", "adapter", "base_name"), ADAPTERS)
def test_an_adapter_is_safetensors_of_the_promised_format(base: DemoBase, adapter: str, base_name: str) -> None:
    directory = base.artefacts / "adapters" / adapter
    allowed = {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    assert {path.name for path in directory.iterdir()} <= allowed
    with safe_open(directory / "adapter_model.safetensors", framework="np") as file:
        formats = {str(file.get_tensor(name).dtype) for name in file.keys()}  # noqa: SIM118 - not a dict
    assert formats == {"float32" if base.name == "tiny" else "float16"}
    assert (directory / "adapter_model.safetensors").stat().st_size < 6_000_000


@EACH_BASE
def test_no_artefact_speaks_of_a_machine(base: DemoBase) -> None:
    texts = [path for path in base.artefacts.rglob("*") if path.suffix in (".json", ".md", ".jsonl", ".jinja")]
    assert texts
    for path in texts:
        text = path.read_text(encoding="utf-8")
        for trace in ("/work", "/home", "/root", "/tmp", "site-packages"):
            assert trace not in text, path


@EACH_BASE
def test_nothing_is_a_pickle(base: DemoBase) -> None:
    suffixes = {path.suffix for path in base.artefacts.rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".jsonl", ".jinja", ".md", ".safetensors"}


@EACH_BASE
def test_profiles_name_adapters_that_are_there(base: DemoBase) -> None:
    profiles = read_profiles(base)
    assert {profile.tenant for profile in profiles} == {"acme", "globex"}
    assert len({profile.full_name for profile in profiles}) == len(profiles)
    for profile in profiles:
        assert 1 <= len(profile.adapters) <= 2
        for adapter in profile.adapters:
            assert (base.artefacts / adapter / "adapter_model.safetensors").is_file()
        first = read_held_out(base.artefacts, profile.task)[0]
        assert (profile.example.prompt, profile.example.answer) == (first.prompt, first.answer)


def peft_types(base: DemoBase, tenant: str) -> list[frozenset[str]]:
    found = []
    for profile in read_profiles(base):
        if profile.tenant == tenant:
            configs = [
                json.loads((base.artefacts / one / "adapter_config.json").read_text()) for one in profile.adapters
            ]
            found.append(frozenset("DORA" if one.get("use_dora") else one["peft_type"] for one in configs))
    return found


def test_acmes_tiny_profiles_cover_every_kind() -> None:
    kinds = peft_types(BASES["tiny"], "acme")
    assert {frozenset({kind}) for kind in ("LORA", "DORA", "IA3", "PROMPT_TUNING", "P_TUNING")} <= set(kinds)
    assert frozenset({"LORA", "P_TUNING"}) in kinds


def test_acmes_smollm2_profiles_cover_weights_and_virtual_tokens() -> None:
    kinds = set().union(*peft_types(BASES["smollm2"], "acme"))
    assert {"LORA", "IA3", "PROMPT_TUNING"} <= kinds


@pytest.mark.parametrize("recipe", smollm2.ADAPTERS, ids=lambda recipe: recipe.name)
def test_a_model_card_says_the_measured_scores(recipe: smollm2.AdapterRecipe) -> None:
    base = BASES["smollm2"]
    card = Path(base.artefacts / "adapters" / recipe.name / "README.md").read_text(encoding="utf-8")
    scores = [row for row in read_scores(base.artefacts / "scores.json") if row.name == recipe.name]
    assert len(scores) == 2
    for row in scores:
        assert f"| {row.held_out_set} | {row.base_bare} | {row.base_instructed} | {row.adapted} |" in card
        assert (base.artefacts / "heldout" / f"{row.held_out_set}.jsonl").is_file()


@EACH_BASE
def test_the_manual_has_the_measured_scores(base: DemoBase) -> None:
    manual = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    table = markdown_table(read_scores(base.artefacts / "scores.json"))
    assert table in manual, f"put this into docs/models.md:\n{table}"
