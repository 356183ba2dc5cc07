"""
What the kernel says about processes: who descends from whom, who still lives, what memory they hold.

Also decides how a child is tied to its parent's life. Does not know what any process is for.
"""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import NamedTuple

_LIBC = ctypes.CDLL(None, use_errno=True)
# Source: linux/prctl.h
_PR_SET_PDEATHSIG = 1
_LEFT_BEHIND_S = 1.0


def tie_to_parent() -> Callable[[], None]:
    """
    What a child runs before its program: it is sent SIGTERM when its parent ends, in whatever way.

    SIGTERM and not SIGKILL, so that Triton gives its shared memory back.
    """
    parent = os.getpid()

    def tie() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before the line above
            os._exit(1)

    return tie


class _Stat(NamedTuple):
    state: str
    parent: int
    group: int


def _stat(process: Path) -> _Stat | None:
    """The fields of one process that has not ended. Source: proc_pid_stat(5); the name in parentheses may hold any."""
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return _Stat(fields[0], int(fields[1]), int(fields[2])) if fields[0] not in ("Z", "X") else None


def _running() -> dict[int, _Stat]:
    found = ((int(entry.name), _stat(entry)) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return {pid: stat for pid, stat in found if stat is not None}


def descendants(root: int) -> list[int]:
    """Pids of all that descend from `root`, without itself, parents before children."""
    children: dict[int, list[int]] = {}
    for pid, stat in _running().items():
        children.setdefault(stat.parent, []).append(pid)
    found: list[int] = []
    queue = [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def group_lives(groups: Iterable[int]) -> bool:
    """Whether any of these process groups has a member that runs."""
    wanted = set(groups)
    return any(stat.group in wanted for stat in _running().values())


def marked(mark: str) -> list[int]:
    """
    Pids of the processes whose environment at their start held `mark`, such as `NAME=value`.

    It finds those that left their group, session and parent, as daemons do; not one that has overwritten the place.
    """
    wanted = mark.encode()
    found = []
    for pid in _running():
        with contextlib.suppress(OSError):
            if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def kill(pids: Iterable[int]) -> None:
    """Send SIGKILL to each that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    """Whether a process of that number runs; an ended one that nobody waited for does not."""
    return _stat(Path(f"/proc/{pid}")) is not None


def end_groups(groups: Collection[int], grace_s: float, impatient: Callable[[], bool] = lambda: False) -> bool:
    """
    End process groups: ask the leader of each, who knows best in which order its own children end; then make them.

    They have `grace_s` to end by themselves, or until `impatient`; what a leader leaves behind has less. Returns
    whether every leader ended by itself.
    """
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            if is_alive(group):
                os.kill(group, signal.SIGTERM)
            else:
                os.killpg(group, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while group_lives(groups) and time.monotonic() < deadline and not impatient():
        if not any(map(is_alive, groups)):
            deadline = min(deadline, time.monotonic() + _LEFT_BEHIND_S)
        time.sleep(0.02)
    by_themselves = not any(map(is_alive, groups))
    kill_groups(groups)
    return by_themselves


def kill_groups(groups: Iterable[int]) -> None:
    """Send SIGKILL to every member of the groups; those that have none are passed over."""
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def resident_bytes(pids: Iterable[int]) -> int:
    """What the processes hold in memory together; a page that several share counts once (PSS)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return total
