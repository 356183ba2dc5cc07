"""
Ends what a local run left behind when its supervisor was killed without a chance to do it itself.

A process of its own on one pipe from the supervisor: `+N` names a process group to watch over, `-N` one that has ended,
`done` says that all has been stopped. Where the pipe closes without that word, every group is asked to end, then made
to, with whatever else bears the run's mark, and shared memory that Triton left is removed. It does not know what the
groups are.

    python -m gateway.local.reaper GRACE_SECONDS SHARED_MEMORY_PREFIX MARK
"""

import signal
import sys

from gateway.local.processes import end_groups, kill, marked
from gateway.local.triton import remove_shared_memory


def main(grace_s: float, shared_memory_prefix: str, mark: str) -> None:
    """Read the pipe to its end, then do what the module says."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with the pipe, never before the supervisor
    groups: set[int] = set()
    for line in sys.stdin:
        match line[0], line[1:].strip():
            case "+", number_text:
                groups.add(int(number_text))
            case "-", number_text:
                groups.discard(int(number_text))
            case _:
                return
    end_groups(groups, grace_s)
    kill(marked(mark))
    remove_shared_memory(shared_memory_prefix)


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2], sys.argv[3])
