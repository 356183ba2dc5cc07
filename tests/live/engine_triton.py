"""
A Triton of its own for the engine's live tests: started on free-standing ports, stopped with everything it started.

Knows the files of the Triton wheel under .tools/ and little of the gateway's own supervision.
"""

import filecmp
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.local.triton import remove_shared_memory

ROOT = Path(__file__).parent.parent.parent
WHEEL = ROOT / ".tools" / "pytriton" / "pytriton" / "tritonserver"


@dataclass(frozen=True)
class RunningTriton:
    grpc: str
    metrics_url: str
    log: Path

    def metric(self, name: str, label: str) -> float:
        """The value of one line of /metrics whose labels contain `label`; fails when it is not there."""
        with urllib.request.urlopen(self.metrics_url, timeout=5) as response:
            lines = response.read().decode().splitlines()
        found = [line for line in lines if line.startswith(name) and f'"{label}"' in line]
        assert found, f"no metric {name} with {label}"
        return float(found[0].rsplit(" ", 1)[1])


def missing() -> str | None:
    """Why Triton cannot be started here, or None."""
    return None if (WHEEL / "bin" / "tritonserver").exists() else f"no Triton in {WHEEL}"


@contextmanager
def triton(engine_dir: Path, http_port: int, log: Path) -> Iterator[RunningTriton]:
    """Serve an engine directory on http_port, +1 (gRPC) and +2 (metrics) of 127.0.0.1."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    # The stub finds its libraries relative to the wheel, so it has to be put there; in one move, others may start too.
    stub = WHEEL / "backends" / "python" / "triton_python_backend_stub"
    wanted = WHEEL / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.exists() or not filecmp.cmp(stub, wanted, shallow=False):
        fresh = stub.with_name(f"stub.{os.getpid()}")
        shutil.copy(wanted, fresh)
        fresh.chmod(0o755)
        fresh.replace(stub)
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": sysconfig.get_config_var("LIBDIR"),
        "PYTHONPATH": sysconfig.get_paths()["purelib"],
    }
    command = [str(WHEEL / "bin" / "tritonserver"), "--model-repository", str(engine_dir / "model_repository")]
    command += ["--backend-directory", str(WHEEL / "backends"), "--exit-timeout-secs", "10"]
    for offset, name in enumerate(("http", "grpc", "metrics")):
        command += [f"--{name}-address", "127.0.0.1", f"--{name}-port", str(http_port + offset)]
    prefix = f"tailor-test-{os.getpid()}-{http_port}"
    command.append("--backend-config=python,shm-default-byte-size=268435456")
    command.append(f"--backend-config=python,shm-region-prefix-name={prefix}")
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:
        _wait_ready(process, http_port, log)
        yield RunningTriton(f"127.0.0.1:{http_port + 1}", f"http://127.0.0.1:{http_port + 2}/metrics", log)
    finally:
        if process.poll() is None:
            # The server alone: it ends its stub, and takes back their shared memory.
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        remove_shared_memory(prefix)


def _wait_ready(process: "subprocess.Popen[bytes]", http_port: int, log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"tritonserver ended with {process.returncode}:\n{log.read_text()[-3000:]}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/v2/health/ready", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"tritonserver was not ready in time:\n{log.read_text()[-3000:]}")
