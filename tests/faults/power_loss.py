"""Machines on disks that lose what was not synced lose their power under load, the leader's or all."""

from __future__ import annotations

import random
import time

from tests.disk.mounted import LOSSES
from tests.storelab import Load, Stores

WORK_S = 0.5
"""How long is written between two losses, at least."""


def campaign(stores: Stores, rounds: int, seed: int) -> str:
    """Losses of power, every second one of all machines; AssertionError when anything acknowledged is gone.

    Returns what happened, a line a loss.
    """
    rand = random.Random(seed)
    happened = []
    with Load(stores, None) as load:
        for number in range(rounds):
            leader = stores.calm()
            time.sleep(WORK_S)
            those = [leader] if number % 2 == 0 else list(stores.urls)
            loss = LOSSES[number % len(LOSSES)]
            told = stores.lab.lab("kill", *those, "--loss", loss, "--seed", str(rand.randrange(1 << 32)))
            happened.append(f"{loss}: {', '.join(told.splitlines())}")
            assert told.count("bytes were not synced") == len(those), told
            for one in those:
                stores.lab.lab("start", one)
            stores.powered()
        stores.calm()
    for machine in stores.urls:
        load.check(machine)
    return "\n".join([*happened, f"{load.summary}; at most {load.longest_pause():.2f} s without a write"])
