"""
A supervisor over small services that behave badly on purpose, run by the tests as a process of its own.

    python -m tests.unit.local.supervised RUN_DIRECTORY

Prints one JSON line with the pids of all its services and their children once they run, then watches.
"""

import json
import os
import sys
import time
from pathlib import Path

from gateway.local.errors import LocalRunError, ServiceDied, StopAsked
from gateway.local.layout import RunDirectory
from gateway.local.processes import descendants
from gateway.local.supervisor import Service, Supervisor

POLITE = "import time; print('polite line', flush=True); time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
# Its child leaves group and session and loses its parent: what a daemon does.
RUNAWAY = """
import subprocess, sys, time
daemon = [sys.executable, "-c", "import time; time.sleep(600)"]
middle = f"import subprocess; print(subprocess.Popen({daemon!r}, start_new_session=True).pid)"
subprocess.run([sys.executable, "-c", middle])
print("away", flush=True)
time.sleep(600)
"""


def service(run: RunDirectory, name: str, code: str) -> Service:
    return Service(
        name=name,
        command=[sys.executable, "-c", code],
        environment=dict(os.environ),
        log=run.log(name),
        pid_file=run.pids / f"{name}.pid",
        ready=lambda: True,
        ready_within_s=10.0,
    )


def main(directory: Path) -> int:
    run = RunDirectory(directory)
    run.create()
    try:
        with (
            run.held() as lock,
            Supervisor(grace_s=0.5, shared_memory_prefix="tailor-test-none-", lock=lock) as supervisor,
        ):
            pids = {
                name: supervisor.start(service(run, name, code))
                for name, code in (("polite", POLITE), ("deaf", DEAF), ("runaway", RUNAWAY))
            }
            while not (runaway := run.log("runaway").read_text()).endswith("away\n"):
                time.sleep(0.01)
            print(
                json.dumps({"services": pids, "all": [*descendants(os.getpid()), int(runaway.split()[0])]}), flush=True
            )
            supervisor.watch()
    except StopAsked as asked:
        print(f"asked by {asked}", flush=True)
    except ServiceDied as died:
        print(f"{died}\n{died.tail}", flush=True)
        return 1
    except LocalRunError as error:
        print(error, flush=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
