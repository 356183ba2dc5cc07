"""Puts the engine's package on the path, the way Triton's model.py does; it is not installed."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent.parent
sys.path.insert(0, str(ROOT / "model_repository" / "reference" / "tensorrt_llm" / "1"))
