"""For all tests: a failed one that used a lab shows what the daemons of its machines said."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

import pytest

from tests.lab import Lab


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the end of each machine's log to the report of a failure."""
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        for lab in (value for value in item.funcargs.values() if isinstance(value, Lab)):
            for name in lab.names:
                with contextlib.suppress(OSError, AssertionError, StopIteration):
                    report.sections.append((f"log of {name}", lab.log_of(name)))
    return report
