"""Lab machines lose their power, the leader's or all, again and again under load. ROUNDS=20, SEED=1."""

from __future__ import annotations

import os

import pytest

from tests.disk.mounted import missing
from tests.faults.power_loss import campaign
from tests.lab import Lab
from tests.storelab import Stores

ROUNDS = int(os.environ.get("ROUNDS", "20"))
SEED = int(os.environ.get("SEED", "1"))

pytestmark = [pytest.mark.soak, pytest.mark.skipif(bool(missing()), reason=missing())]


def test_what_the_store_acknowledged_is_there_through_a_campaign() -> None:
    print(f"seed {SEED}")
    with Lab("powersoak", 3, disks=True, store="own") as lab:
        lab.wait_formed()
        print(campaign(Stores(lab), ROUNDS, SEED))
