"""
The configuration that the documentation shows is one that is accepted, and its limits are the defaults.
"""

import re
from pathlib import Path

from gateway.config import Limits, load_config

PAGE = Path(__file__).resolve().parents[3] / "docs" / "configuration.md"


def test_the_documented_file_is_accepted_and_shows_the_defaults(tmp_path):
    [example] = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    file = tmp_path / "tailor.yaml"
    file.write_text(example)
    config = load_config(file, {"TAILOR_KEY_PEPPER": "0123456789abcdef"})
    assert config.limits == Limits()
    named = re.findall(r"^  ([a-z_]+):", example[example.index("limits:") :], re.MULTILINE)
    assert sorted(named) == sorted(Limits.__struct_fields__)
