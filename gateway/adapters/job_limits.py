"""
How much one conversion may use. Imports nothing heavy, because the command line knows these bounds too.
"""

import msgspec


class JobLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Walls around one conversion. `timeout_s` is both wall-clock time and processor time."""

    address_space_bytes: int = 2 << 30
    file_bytes: int = 2 << 30
    timeout_s: int = 300
