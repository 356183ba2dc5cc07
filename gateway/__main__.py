"""
`python -m gateway serve --config tailor.yaml`: the processes of one gateway.

Decides who starts whom: this process serves callers (or supervises the workers that do) and owns the control process;
when either ends, both do. Does not know what they are made of (wiring.py).
"""

import argparse
import asyncio
import ctypes
import gc
import multiprocessing
import os
import shutil
import signal
import subprocess  # only ever runs this interpreter on this package
import sys
import threading
from pathlib import Path
from typing import cast

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from gateway.config import LOADER_SOCKET, Config, ConfigError, Limits, load_config
from gateway.transport.connection import ConnectionLimits, bounded_connections

_PATH_VARIABLE = "TAILOR_CONFIG"
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m gateway", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("process", choices=["serve", "control"], help="all of a gateway, or its control process alone")
    parser.add_argument("--config", type=Path, default=Path("tailor.yaml"), help="the configuration file")
    arguments = parser.parse_args()
    try:
        return serve(arguments.config) if arguments.process == "serve" else control(arguments.config)
    except ConfigError as error:
        print(f"tailor: {error}", file=sys.stderr)
        return 2


def serve(path: Path) -> int:
    """
    Serve until SIGTERM or SIGINT; streams under way are finished.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    config = load_config(path)
    os.environ[_PATH_VARIABLE] = str(path.resolve())
    runtime = path.resolve().parent / config.runtime_directory
    _share_metrics(runtime)
    # Readiness looks for this socket; one that a killed process left must not be taken for a loader.
    (runtime / LOADER_SOCKET).unlink(missing_ok=True)
    child = subprocess.Popen([sys.executable, "-m", "gateway", "control", "--config", str(path)])
    stopping = threading.Event()
    threading.Thread(target=_follow, args=(child, stopping), daemon=True).start()
    try:
        _run("gateway.__main__:worker", config.listen.host, config.listen.port, config.listen.workers, config.limits)
    finally:
        stopping.set()
        child.terminate()
        child.wait()
    return 1 if child.returncode not in (0, -signal.SIGTERM) else 0


def control(path: Path) -> int:
    """Serve the admin API and load adapters until SIGTERM, or until the process that started this one is gone."""
    config = load_config(path)
    os.environ[_PATH_VARIABLE] = str(path.resolve())
    _end_with_parent()
    _share_metrics(path.resolve().parent / config.runtime_directory, fresh=False)
    _run("gateway.__main__:control_process", config.admin.host, config.admin.port, 1, config.limits)
    return 0


def worker() -> ASGIApp:
    """Uvicorn's factory for a worker process."""
    if multiprocessing.parent_process() is not None:
        _end_with_parent()
    from gateway.wiring import worker_app  # noqa: PLC0415 - after the metrics' directory is known

    # Threads of its own are of no use for one prompt at a time.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    app = worker_app(*_configured())
    _settle_heap()
    return app


def control_process() -> FastAPI:
    """Uvicorn's factory for the control process."""
    from gateway.wiring import control_app  # noqa: PLC0415 - after the metrics' directory is known

    return control_app(*_configured())


def _end_with_parent() -> None:
    # However that ends: what it leaves behind would keep its port, and answer on it without what belongs to it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _settle_heap() -> None:
    # What is there now stays for good: looking at it again and again took a sixth of a request's time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


def _configured() -> tuple[Config, Path]:
    from gateway.telemetry.logs import configure_logs  # noqa: PLC0415 - after the metrics' directory is known

    configure_logs()
    path = Path(os.environ[_PATH_VARIABLE])
    return load_config(path), path.parent


def _run(factory: str, host: str, port: int, workers: int, limits: Limits) -> None:
    connections = bounded_connections(ConnectionLimits(limits.header_bytes, limits.header_s, limits.stall_s))
    uvicorn.run(
        factory,
        factory=True,
        host=host,
        port=port,
        workers=workers if workers > 1 else None,
        loop="uvloop",
        http=cast(type[asyncio.Protocol], connections),  # uvicorn only ever calls it
        access_log=False,
        log_config=None,
        server_header=False,
        lifespan="on",
        timeout_keep_alive=75,
    )


def _share_metrics(runtime: Path, *, fresh: bool = True) -> None:
    directory = runtime / "metrics"
    if fresh:
        shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)


def _follow(child: "subprocess.Popen[bytes]", stopping: threading.Event) -> None:
    child.wait()
    if not stopping.is_set():
        print(f"tailor: the control process ended with status {child.returncode}; stopping", file=sys.stderr)
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
