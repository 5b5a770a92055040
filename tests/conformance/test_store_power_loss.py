"""Members on disks that lose what was not synced: what was acknowledged is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import power
from tests.disk.mounted import missing

ROUNDS = 3

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


async def test_what_was_acknowledged_is_there_after_power_was_lost(tmp_path: Path) -> None:
    with power.cluster(tmp_path, 1) as cluster:
        await power.campaign(cluster, ROUNDS)
