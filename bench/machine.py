"""
Where a run took place, as far as its figures depend on it.

Decides what is told; no name of a machine is.
"""

import os
import platform
import sysconfig
from pathlib import Path

import msgspec

from gateway.local.threads import processors


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """
    `optimised_python`: whether the interpreter was built with profile-guided optimisation; one that was not costs 1.2
    to 1.6 times as much. `load`: the run queue's length in the minute before the run; 0 on an idle machine.
    """

    cores: int
    processor: str
    memory_gib: float
    kernel: str
    python: str
    optimised_python: bool
    load: float


def machine() -> Machine:
    """This machine, now."""
    return Machine(
        cores=processors(),
        processor=_processor(),
        memory_gib=round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        kernel=platform.release().partition("-")[0],
        python=platform.python_version(),
        optimised_python="--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or ""),
        load=round(os.getloadavg()[0], 2),
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return name or platform.machine()
