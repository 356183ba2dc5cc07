"""
The tool that scores a demo profile beside plain peft, on a running stack.
"""

import json
import subprocess
import sys

from tests.live.stack import Stack


def test_scores_through_the_gateway_are_those_of_plain_peft(stack: Stack) -> None:
    command = [sys.executable, "-m", "build.evaluate", "--base", "tiny", "--profile", "acme/order-slip", "--json"]
    done = subprocess.run([*command, "--served", stack.ready.env], capture_output=True, text=True, check=True)
    [scored] = json.loads(done.stdout)
    assert scored["served"] == scored["score"] == {"right": 64, "total": 64}
    assert scored["same"] == 64
