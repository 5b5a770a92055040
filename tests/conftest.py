"""For all tests: programs can be interrupted; a failed test that used a lab shows what its machines' daemons said."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Generator

import pytest

from tests.lab import Lab

# A shell starts what runs in its background with SIGINT ignored, and so would be all programs that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
