"""The leader's machine loses its power under load, and all machines do: what the store acknowledged is there."""

from __future__ import annotations

import pytest

from tests.disk.mounted import missing
from tests.faults.power_loss import campaign
from tests.lab import Lab
from tests.storelab import Stores

ROUNDS = 4

pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(missing()), reason=missing())]


def test_what_the_store_acknowledged_is_there_when_machines_lose_their_power_again_and_again() -> None:
    with Lab("power", 3, disks=True, store="own") as lab:
        lab.wait_formed()
        print("\n" + campaign(Stores(lab), ROUNDS, 1))
