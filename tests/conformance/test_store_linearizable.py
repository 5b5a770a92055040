"""Three real members under kill -9, standing still, cuts and torn logs: can clients tell them from a single one?"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.linear.run import run_patiently

SECONDS = 30.0

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


def test_what_clients_see_under_faults_is_linearizable(tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED", "0")) or int.from_bytes(os.urandom(3))
    code, printed = run_patiently(tmp_path / "run", seed, SECONDS)
    assert code == 0, f"{printed}\nhistory, logs and data: {tmp_path / 'run'}"
    assert "\nlinearizable\n" in printed
