"""Puts the engine's package on the path, the way Triton's model.py does; it is not installed."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent.parent.parent
sys.path.insert(0, str(ROOT / "model_repository" / "reference" / "tensorrt_llm" / "1"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """A model this small is quickest on one thread, and a busy machine then slows the tests no more than it must."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny() -> Path:
    return ROOT / "build" / "tiny"
