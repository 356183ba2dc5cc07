"""
How many threads the engine's arithmetic gets on this machine.

Decides it from the processors that this process may use. Does not know what is computed.
"""

import os
from pathlib import Path

_MOST = 16


def processors(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Whole processors this process may keep busy, at least 1: its affinity, or a container's quota where smaller."""
    available = len(os.sched_getaffinity(0))
    try:
        limit, period = quota.read_text().split()
        if limit != "max":
            available = min(available, int(limit) // int(period))
    except (OSError, ValueError):
        pass  # no cgroup v2: the affinity is all there is to know
    return max(1, available)


def thread_settings() -> dict[str, str]:
    """
    Environment of a process that computes with torch.

    Waiting threads sleep rather than spin: on two cores a spinning one takes the gateway's.
    """
    number = str(min(processors(), _MOST))
    return {"OMP_NUM_THREADS": number, "MKL_NUM_THREADS": number, "OMP_WAIT_POLICY": "PASSIVE"}
