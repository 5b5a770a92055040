"""Long runs of the check for linearizability, each of another seed. `make soak SOAK=linearizable`, ROUNDS=10, SEED=1.

A round takes about 70 s. What a round that failed saw stays in /var/tmp.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.linear.run import run_apart

ROUNDS = int(os.environ.get("ROUNDS", "10"))
SEED = int(os.environ.get("SEED", "1"))
SECONDS = 60.0

pytestmark = pytest.mark.soak


def test_every_history_of_a_campaign_is_linearizable() -> None:
    failed = []
    for seed in range(SEED, SEED + ROUNDS):
        directory = Path(f"/var/tmp/fleetd-linear-{os.getpid()}-{seed}")
        done = run_apart(directory, seed, SECONDS)
        print(done.stdout, flush=True)
        if done.returncode == 0:
            shutil.rmtree(directory)
        else:
            failed.append(f"seed {seed}: {directory}")
    assert not failed, "\n".join(failed)
