"""Wall clocks of members that are set forwards and back, together or alone, while clients work and hold leases."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.linear import clock
from tests.linear.run import run_patiently

SECONDS = 8.0

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(bool(clock.missing()), reason=clock.missing()),
]


def test_no_lease_no_leader_and_no_read_goes_by_a_wall_clock(tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED", "0")) or int.from_bytes(os.urandom(3))
    code, printed = run_patiently(tmp_path / "run", seed, SECONDS, only_clocks=True)
    assert code == 0, f"{printed}\nhistory, logs and data: {tmp_path / 'run'}"
    assert printed.count("the clock of") > 3 and "leases ended" in printed, printed
