"""How busy a machine is told to be."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from benchmarks import host


def test_what_others_use_is_seen() -> None:
    spin = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        assert host.busy().cores > 0.3
    finally:
        spin.kill()
        spin.wait()


def test_those_who_use_most_are_named_and_we_do_not_count() -> None:
    before = host.Ticks([100, 0, 0, 900, 0, 0, 0, 0], {(1, "ld"): 50, (2, "rustc"): 10, (os.getpid(), "python"): 0})
    after = host.Ticks(
        [150, 0, 20, 1_010, 20, 0, 0, 0],
        {(1, "ld"): 51, (2, "rustc"): 40, (3, "cargo"): 11, (os.getpid(), "python"): 28},
    )
    found = host.between(before, after, 2)
    assert (found.cores, found.waits) == pytest.approx((0.7, 0.2))
    assert found.most == ("rustc", "cargo")


def test_a_quiet_machine_is_told_as_such() -> None:
    assert str(host.Busy(0.04, 0.05)).startswith("quiet: others use 0.0 of ")
    assert str(host.Busy(0.0, 0.5, ())).startswith("BUSY")
    assert str(host.Busy(1.0, 0.0, ("rustc", "ld"))).endswith("(most: rustc, ld)")


def test_the_machine_tells_commit_date_and_load() -> None:
    assert all(host.about().get(name) for name in ("date", "commit", "cpu", "kernel", "load"))
