"""
Bases that every test of this folder may use; they are made once and never changed.
"""

from pathlib import Path

import pytest
import torch

from tests.unit.adapters.bases import TestBase, make_base

# Small matrices: a second thread costs more than it brings.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> TestBase:
    return make_base("llama", tmp_path_factory.mktemp("bases") / "small-llama")


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> TestBase:
    return make_base("qwen", tmp_path_factory.mktemp("bases") / "small-qwen")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder
