"""
What holds for every test: in CI nothing is skipped for want of a tool.

At a desk a test that needs nginx, node or a browser is skipped with the reason. With TAILOR_CI set that counts as a
failure, since `.ci/run` has installed them; only what is marked `gpu` may be skipped there.
"""

import os
from collections.abc import Generator

import pytest

IN_CI = bool(os.environ.get("TAILOR_CI"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    expected = hasattr(report, "wasxfail") or item.get_closest_marker("gpu") is not None
    if IN_CI and report.skipped and not expected:
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where every tool is installed: {_reason(report)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if IN_CI and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} skipped in CI, where every tool is installed: {_reason(report)}"
    return report


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
