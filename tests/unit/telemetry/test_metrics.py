"""
What all processes of a gateway count together, when one of them ends in whatever way.
"""

import os
import subprocess
import sys

# The way in which metrics are shared is chosen when they are imported, so this needs a process of its own.
SCRIPT = """
import os
from gateway.domain.record import RequestRecord
from gateway.telemetry.metrics import MetricsObserver, exposition

def record():
    return RequestRecord(request_id="r", tenant="acme", operation="chat", stream=False)

observer = MetricsObserver()
observer.started(record())
child = os.fork()
if not child:
    observer.finished(record())
    observer.started(record())
    observer.started(record())
    observer.started(record())
    os._exit(9)
os.waitpid(child, 0)
print(exposition().decode())
"""


def test_what_a_killed_process_had_under_way_is_forgotten_and_what_it_counted_is_not(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert "tailor_requests_in_flight 1.0" in lines
    assert 'tailor_requests_total{operation="chat",outcome="refused",tenant="acme"} 1.0' in lines
