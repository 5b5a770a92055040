"""Three real members under kill -9, standing still, cuts and torn logs: can clients tell them from a single one?"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.linear.run import run_apart

SECONDS = 30.0

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


def test_what_clients_see_under_faults_is_linearizable(tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED", "0")) or int.from_bytes(os.urandom(3))
    done = run_apart(tmp_path / "run", seed, SECONDS)
    assert done.returncode == 0, f"{done.stdout}\nhistory, logs and data: {tmp_path / 'run'}"
    assert "\nlinearizable\n" in done.stdout
