"""
What processes cost, from /proc: nanoseconds on a processor, nanoseconds of waiting for one, peak memory.

Decides what is added up: every thread of the named processes. Does not know whose processes they are.

Source: Linux, Documentation/scheduler/sched-stats.rst (schedstat), proc_pid_status(5).
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class Spent(NamedTuple):
    """Nanoseconds: running, and ready to run while no processor was free."""

    ran_ns: int
    waited_ns: int


class Meter:
    """
    Counts from its making on. A thread that ends in between takes its count along, so measure processes whose threads
    stay; one that begins in between counts whole.
    """

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = tuple(pids)
        self._began = _threads(self._pids)

    def spent(self) -> Spent:
        ran = waited = 0
        for thread, now in _threads(self._pids).items():
            before = self._began.get(thread, Spent(0, 0))
            ran += now.ran_ns - before.ran_ns
            waited += now.waited_ns - before.waited_ns
        return Spent(ran, waited)


def _threads(pids: Iterable[int]) -> dict[tuple[int, str], Spent]:
    found = {}
    for pid in pids:
        tasks = Path(f"/proc/{pid}/task")
        try:
            for task in os.listdir(tasks):
                ran, waited, _ = (tasks / task / "schedstat").read_text().split()
                found[pid, task] = Spent(int(ran), int(waited))
        except OSError:
            continue  # ended meanwhile
    return found


def machine_busy_ns() -> int:
    """What all processors together have worked since the start of the machine, in steps of a clock tick."""
    with Path("/proc/stat").open() as file:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) * _TICK_NS


def peak_bytes(pid: int) -> int:
    """The most resident memory a process has had (VmHWM); shared pages included. 0 where it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)
