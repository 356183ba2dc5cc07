"""
What Triton says on its metrics port.
"""

import asyncio
import re
import urllib.request

from tests.live.stack import Stack


def engine_gauge(stack: Stack, family: str, value: str) -> float:
    """One gauge by its only label's value, such as ("nv_trt_llm_request_metrics", "active")."""
    with urllib.request.urlopen(stack.triton_metrics, timeout=10) as response:
        text = response.read().decode()
    found = re.search(rf'^{family}\{{[^}}]*="{value}"[^}}]*\}} ([0-9.e+-]+)$', text, re.MULTILINE)
    assert found, f"{family} has no {value}"
    return float(found[1])


async def settles(stack: Stack, family: str, value: str, wanted: float, within_s: float = 20.0) -> bool:
    """Whether the gauge reaches a number at all; how fast is for `make faults` to say."""
    for _ in range(int(within_s / 0.1)):
        if await asyncio.to_thread(engine_gauge, stack, family, value) == wanted:
            return True
        await asyncio.sleep(0.1)
    return False
