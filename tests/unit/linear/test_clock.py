"""A process's own clock, and what leases are held against."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.members import OURS, Members
from tests.linear import clock, leases
from tests.linear.clock import Clock
from tests.linear.leases import SECOND, Held

DAY_S = 86_400
ASK = """
import sys, time
for _ in sys.stdin:
    print(time.time(), time.monotonic(), flush=True)
"""


@pytest.fixture
def own(tmp_path: Path) -> Clock:
    if why := clock.missing():
        pytest.skip(why)
    return Clock(clock.build(tmp_path), tmp_path / "clock")


@pytest.fixture
def asked(own: Clock) -> Iterator[subprocess.Popen[str]]:
    own.uptime_s = 5 * DAY_S
    words = [*own.before(), sys.executable, "-c", ASK]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def ask(process: subprocess.Popen[str]) -> tuple[float, float]:
    assert process.stdin is not None and process.stdout is not None
    print(file=process.stdin, flush=True)
    wall, monotonic = process.stdout.readline().split()
    return float(wall) - time.time(), float(monotonic) - time.monotonic()


@pytest.mark.skipif(not Path("/proc/self/ns/time").exists(), reason="no time namespaces")
def test_a_process_has_a_clock_of_its_own_which_jumps_while_it_runs(own: Clock, asked: subprocess.Popen[str]) -> None:
    for jump, moved in ((0, 0), (DAY_S, DAY_S), (-400.5, DAY_S - 400.5), (-1e12, -clock.FURTHEST_S)):
        own.jump(jump)
        wall, monotonic = ask(asked)
        assert wall == pytest.approx(moved, abs=1)
        assert monotonic == pytest.approx(5 * DAY_S, abs=1), "that one does not jump"


def test_the_store_goes_by_it(own: Clock, tmp_path: Path) -> None:
    own.jump(-1000 * DAY_S)
    members = Members(tmp_path / "members", 1, command=(*own.before(), *OURS))
    try:
        members.start()
        lines = members.members[0].fetch("/metrics").splitlines()
        began = next(float(line.split()[1]) for line in lines if line.startswith("process_start_time_seconds "))
        assert time.time() - began == pytest.approx(1000 * DAY_S, abs=60)
    finally:
        members.close()


def test_a_lease_that_ends_too_early_or_too_late_is_found() -> None:
    def held(renewed: float, touched: float, ended: float) -> Held:
        return Held("m1", 2, *(int(one * SECOND) for one in (renewed, touched, ended)))

    right = [held(1, 1.2, 3.0), held(1, 2.0, 3.5), held(1, 1, 4.9)]
    assert leases.check(right) == leases.check(right, 2.0) == []
    assert "0.500 s too early" in leases.check([held(1, 1, 2.5)])[0]
    late = [held(1, 1, 5.5), held(1, 1, 0)]
    assert leases.check(late) == []
    assert len(leases.check(late, 2.0)) == 2
