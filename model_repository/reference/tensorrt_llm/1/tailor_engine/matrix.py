"""
Multiplying with a weight matrix that never changes.

Decides how the matrix is stored. oneDNN's own packed layout reads it in order, which on the CPUs tried is 2 to 2.5
times as fast as a plain product (docs/decisions/0001 has the figures); small matrices are quicker plain while few rows
are multiplied. The packing operators are torch's, used by its compiler, and not public: where they are missing or
refuse an element type the plain product is used. Does not know what is multiplied.
"""

from collections.abc import Callable

import torch
from torch.nn import functional

# oneDNN picks a layout for about so many rows; it works for any number.
PACKED_FOR_ROWS = 16
# Up to this size a matrix is kept both ways: calling oneDNN costs more than multiplying.
SMALL_BYTES = 1 << 20


class Matrix:
    """y = x W^T + b for x [rows, in], W [out, in] and b [out] or None."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self._bias = bias
        self._packed = _pack(weight)
        self._plain_below = 0
        self._weight: torch.Tensor | None = weight
        if self._packed is not None:
            small = weight.nbytes <= SMALL_BYTES
            self._plain_below = PACKED_FOR_ROWS if small else 0
            self._weight = weight if small else None
            self._multiply: Callable[..., torch.Tensor] = torch.ops.mkldnn._linear_pointwise

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        if self._packed is not None and rows.shape[0] >= max(self._plain_below, 1):
            return self._multiply(rows, self._packed, self._bias, "none", [], "")
        if self._weight is not None:
            return functional.linear(rows, self._weight, self._bias)
        # Only without rows: the shape still has to be right.
        return rows.new_empty(0, self._packed.shape[0] if self._packed is not None else 0)


def _pack(weight: torch.Tensor) -> torch.Tensor | None:
    """The packed weight, or None where this torch or this CPU cannot."""
    if weight.dtype == torch.float16:
        return None
    try:
        packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_FOR_ROWS)
        probe = torch.zeros(1, weight.shape[1], dtype=weight.dtype)
        torch.ops.mkldnn._linear_pointwise(probe, packed, None, "none", [], "")
    except (AttributeError, RuntimeError, NotImplementedError):
        return None
    return packed
