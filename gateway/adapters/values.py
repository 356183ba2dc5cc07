"""
The check that every value of a tensor is a number.
"""

import numpy as np

from gateway.adapters.refusal import AdapterRefused, RefusalCode
from gateway.adapters.safetensors_file import FloatArray


def finite(values: FloatArray, name: str) -> FloatArray:
    """
    The same array.

    Raises:
        AdapterRefused: an element is NaN or infinite; the message says which tensor and where.
    """
    good = np.isfinite(values)
    if not good.all():
        index = [int(axis) for axis in np.argwhere(~good)[0]]
        raise AdapterRefused(
            RefusalCode.NOT_FINITE,
            f"{name} holds {values[tuple(index)]} at {index}.",
            "Its training has diverged or the file is damaged; hand in an earlier checkpoint.",
            {"tensor": name, "index": str(index)},
        )
    return values
