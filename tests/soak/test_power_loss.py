"""Power is lost again and again, of the leader or of all: what was acknowledged is there. ROUNDS=20, SEED=1."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import power
from tests.disk.mounted import missing

ROUNDS = int(os.environ.get("ROUNDS", "20"))
SEED = int(os.environ.get("SEED", "1"))

pytestmark = [pytest.mark.soak, pytest.mark.skipif(bool(missing()), reason=missing())]


async def test_what_was_acknowledged_is_there_through_a_campaign(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    with power.cluster(tmp_path, SEED) as cluster:
        await power.campaign(cluster, ROUNDS)
