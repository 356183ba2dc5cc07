"""
The conversion as a process of its own: `python -m gateway.adapters.convert_job`, a job on stdin, an outcome in a file.

Decides the walls: address space, processor time, file size, open files. They are put up before a byte that was handed
in is looked at, so that a file made to exhaust or break a reader ends this process and nothing else. Not walled off:
the network and other files of the same user (that takes a container or another user).
"""

import resource
import sys
from pathlib import Path

import msgspec

from gateway.adapters.convert import convert
from gateway.adapters.directory import AdapterFiles
from gateway.adapters.job_limits import JobLimits
from gateway.adapters.refusal import AdapterRefused, RefusalCode
from gateway.adapters.room import is_full
from gateway.domain.manifest import EngineManifest
from gateway.domain.version import Conversion

OUTCOME = "outcome.json"


class JobFiles(msgspec.Struct, frozen=True, kw_only=True):
    config: str
    weights: str


class Job(msgspec.Struct, frozen=True, kw_only=True):
    adapters: tuple[JobFiles, ...]
    engine: EngineManifest
    folder: str
    any_base_name: bool
    limits: JobLimits


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    code: RefusalCode
    message: str
    hint: str
    details: dict[str, str]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Exactly one of the three."""

    conversion: Conversion | None = None
    refusal: Refusal | None = None
    storage_full: bool = False


def put_up_walls(limits: JobLimits) -> None:
    """Lower this process's limits, for good."""
    for what, value in (
        (resource.RLIMIT_AS, limits.address_space_bytes),
        (resource.RLIMIT_CPU, limits.timeout_s + 1),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        capped = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # At the soft limit of processor time comes a signal that says so; at the hard one, a kill like any other.
        soft = max(1, capped - 1) if what == resource.RLIMIT_CPU else capped
        resource.setrlimit(what, (soft, capped))


def perform(job: Job) -> Outcome:
    """Convert and put every expected end into words."""
    files = [AdapterFiles(Path(item.config), Path(item.weights)) for item in job.adapters]
    try:
        made = convert(files, job.engine, Path(job.folder), any_base_name=job.any_base_name)
    except AdapterRefused as refused:
        return Outcome(
            refusal=Refusal(code=refused.code, message=refused.message, hint=refused.hint, details=refused.details)
        )
    except MemoryError:
        return Outcome(
            refusal=Refusal(
                code=RefusalCode.CONVERSION_FAILED,
                message=f"Converting needs more than {job.limits.address_space_bytes:,} bytes of memory.",
                hint="Train with a smaller rank, or raise the conversion's memory limit.",
                details={},
            )
        )
    except OSError as error:
        if is_full(error):
            return Outcome(storage_full=True)
        raise
    return Outcome(conversion=made)


def main() -> int:
    """Read a job from stdin, leave its outcome in the job's folder."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    put_up_walls(job.limits)
    outcome = perform(job)
    (Path(job.folder) / OUTCOME).write_bytes(msgspec.json.encode(outcome))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
