"""
Rotary position tables.

Decides the frequencies: plain, linearly scaled, and Llama 3's. Does not know heads. Both places where configurations
keep them are read: `rope_parameters` (transformers 5) and `rope_theta` with `rope_scaling` (before).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from .errors import EngineLoadError


@dataclass(frozen=True)
class RotaryConfig:
    """kind: default, linear or llama3. The last four fields are llama3's; `factor` is linear's too."""

    head_size: int
    theta: float
    kind: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_positions: int = 8192


@dataclass(frozen=True, eq=False)
class RotaryTable:
    """
    cos, sin  [positions, 1, head size]

    The first half of `sin` is negated: with it, x * cos + roll(x, head size / 2) * sin rotates x.
    """

    cos: torch.Tensor
    sin: torch.Tensor


def read_rotary(raw: Mapping[str, object], head_size: int) -> RotaryConfig:
    """
    Read the rotary part of a Hugging Face configuration.

    Raises:
        EngineLoadError: a kind of scaling that is not computed, or only part of the head is rotated.
    """
    parameters = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(parameters, Mapping):
        raise EngineLoadError("rope_parameters of config.json is not an object")
    theta = parameters.get("rope_theta") or raw.get("rope_theta") or 10000.0
    kind = str(parameters.get("rope_type") or parameters.get("type") or "default")
    if kind not in ("default", "linear", "llama3"):
        raise EngineLoadError(f"rope type {kind} is not computed; known are default, linear, llama3")
    if float(str(parameters.get("partial_rotary_factor") or raw.get("partial_rotary_factor") or 1.0)) != 1.0:
        raise EngineLoadError("partial rotary embeddings are not computed")
    return RotaryConfig(
        head_size=head_size,
        theta=float(str(theta)),
        kind=kind,
        factor=float(parameters.get("factor", 1.0)),
        low_freq_factor=float(parameters.get("low_freq_factor", 1.0)),
        high_freq_factor=float(parameters.get("high_freq_factor", 4.0)),
        original_positions=int(parameters.get("original_max_position_embeddings", 8192)),
    )


def rotary_table(config: RotaryConfig, positions: int, dtype: torch.dtype) -> RotaryTable:
    """Tables for positions 0 to `positions` - 1, computed in float32 as transformers does."""
    size = config.head_size
    frequencies = 1.0 / (config.theta ** (torch.arange(0, size, 2, dtype=torch.int64).float() / size))
    if config.kind == "linear":
        frequencies = frequencies / config.factor
    if config.kind == "llama3":
        frequencies = _llama3(frequencies, config)
    angles = torch.outer(torch.arange(positions).float(), frequencies)
    cos, sin = angles.cos(), angles.sin()
    return RotaryTable(
        cos=torch.cat([cos, cos], dim=-1).to(dtype).unsqueeze(1),
        sin=torch.cat([-sin, sin], dim=-1).to(dtype).unsqueeze(1),
    )


def _llama3(frequencies: torch.Tensor, config: RotaryConfig) -> torch.Tensor:
    """Long waves are slowed by `factor`, short ones left alone, those between blended (Llama 3.1's own rule)."""
    waves = 2 * math.pi / frequencies
    longest = config.original_positions / config.low_freq_factor
    shortest = config.original_positions / config.high_freq_factor
    blend = (config.original_positions / waves - config.low_freq_factor) / (
        config.high_freq_factor - config.low_freq_factor
    )
    blended = (1 - blend) * frequencies / config.factor + blend * frequencies
    scaled = torch.where(waves > longest, frequencies / config.factor, frequencies)
    return torch.where((waves <= longest) & (waves >= shortest), blended, scaled)
