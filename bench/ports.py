"""
Ports of a run: Tailor's own moved to 19000 and up, and three more for what is put beside it.

Decides the numbers. Does not know what listens there.
"""

from dataclasses import dataclass

from gateway.local.errors import LocalRunError
from gateway.local.ports import Ports, is_free

_OFFSETS = range(11000, 11600, 100)  # Triton's first port becomes 19000, 19100, …


@dataclass(frozen=True, slots=True)
class BenchPorts:
    """TCP ports on the loopback address."""

    tailor: Ports
    paced_triton: int
    paced_openai: int
    nginx: int

    @classmethod
    def free(cls) -> "BenchPorts":
        """
        A block that nobody uses.

        Raises:
            LocalRunError: there is none.
        """
        for offset in _OFFSETS:
            tailor = Ports().shifted(offset)
            first = tailor.triton_http + 10
            ports = cls(tailor, first, first + 1, first + 2)
            if all(map(is_free, [*tailor.named().values(), first, first + 1, first + 2])):
                return ports
        raise LocalRunError("no block of ports between 19000 and 19999 is free; stop what listens there")
