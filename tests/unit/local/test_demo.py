"""The lists of demo profiles that `build/` commits."""

from pathlib import Path

import pytest

from gateway.local.bases import BASES, BaseName
from gateway.local.config_file import TENANTS
from gateway.local.demo import demo_profiles
from gateway.local.errors import LocalRunError


@pytest.mark.parametrize("base", list(BaseName))
def test_every_listed_profile_is_a_demo_tenants_and_its_adapters_are_committed(base: BaseName) -> None:
    profiles = demo_profiles(BASES[base].demo)

    assert profiles
    for profile in profiles:
        assert profile.tenant in TENANTS
        assert 1 <= len(profile.directories) <= 2
        assert all((Path(directory) / "adapter_config.json").is_file() for directory in profile.directories)


def test_a_base_without_a_list_has_none(tmp_path: Path) -> None:
    assert demo_profiles(tmp_path) == []


def test_a_list_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "profiles.json").write_text('[{"tenant": "acme"}]')

    with pytest.raises(LocalRunError, match=r"the demo profiles in .*profiles\.json cannot be read: .*name"):
        demo_profiles(tmp_path)
