"""
Starts the conversion in its own process and turns however it ends into an answer.

Decides what a crash or a timeout means to whoever registered the adapter. Blocks while it waits: call it off the
event loop.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from gateway.adapters.convert_job import OUTCOME, Job, JobFiles, Outcome
from gateway.adapters.directory import AdapterFiles
from gateway.adapters.job_limits import JobLimits
from gateway.adapters.refusal import AdapterRefused, RefusalCode
from gateway.domain.manifest import EngineManifest
from gateway.domain.registry_errors import StorageFull
from gateway.domain.version import Conversion

_STDERR = "stderr.txt"


def convert_bounded(
    adapters: Sequence[AdapterFiles],
    engine: EngineManifest,
    folder: Path,
    *,
    any_base_name: bool = False,
    limits: JobLimits | None = None,
) -> Conversion:
    """
    As `convert`, in a process that cannot hurt this one.

    Raises:
        AdapterRefused: refused, or the process died or took too long.
        StorageFull: `folder` lies on a full disk.
    """
    limits = limits or JobLimits()
    job = Job(
        adapters=tuple(JobFiles(config=str(item.config), weights=str(item.weights)) for item in adapters),
        engine=engine,
        folder=str(folder),
        any_base_name=any_base_name,
        limits=limits,
    )
    returncode = _run(job, folder, limits)
    try:
        outcome = msgspec.json.decode((folder / OUTCOME).read_bytes(), type=Outcome)
    except (OSError, msgspec.MsgspecError) as error:
        raise _died(returncode, folder / _STDERR) from error
    (folder / OUTCOME).unlink()
    (folder / _STDERR).unlink(missing_ok=True)
    if outcome.refusal is not None:
        refusal = outcome.refusal
        raise AdapterRefused(refusal.code, refusal.message, refusal.hint, refusal.details)
    if outcome.storage_full or outcome.conversion is None:
        raise StorageFull("The adapter store has no room for the converted tensors; free some space and repeat.")
    return outcome.conversion


def _run(job: Job, folder: Path, limits: JobLimits) -> int:
    environment = {
        **os.environ,
        # The child finds this package the way we did, wherever it was installed.
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        # One thread: each further one reserves address space, and the walls are about that.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    try:
        with (folder / _STDERR).open("wb") as stderr:
            done = subprocess.run(
                [sys.executable, "-m", "gateway.adapters.convert_job"],
                input=msgspec.json.encode(job),
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                timeout=limits.timeout_s,
                env=environment,
                check=False,
            )
    except subprocess.TimeoutExpired as error:
        raise AdapterRefused(
            RefusalCode.CONVERSION_TIMEOUT,
            f"Converting took longer than {limits.timeout_s} seconds and was stopped.",
            "Train with a smaller rank or on fewer layers, or raise the conversion's time limit.",
        ) from error
    return done.returncode


def _died(returncode: int, stderr: Path) -> AdapterRefused:
    if returncode == -signal.SIGXCPU:
        return AdapterRefused(
            RefusalCode.CONVERSION_TIMEOUT,
            "Converting used up its processor time and was stopped.",
            "Train with a smaller rank or on fewer layers, or raise the conversion's time limit.",
        )
    how = f"signal {-returncode}" if returncode < 0 else f"status {returncode}"
    try:
        words = stderr.read_text(errors="replace").strip().splitlines()[-1:]
    except OSError:
        words = []
    return AdapterRefused(
        RefusalCode.CONVERSION_FAILED,
        f"The process that converts adapters ended with {how}.",
        "Nothing was registered. If peft itself can load this adapter, report it with the adapter_config.json.",
        {"last_words": words[0][:300] if words else ""},
    )
