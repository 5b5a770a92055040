"""Many fail-overs of each case, and what the slowest of them waited for. `make soak`, ROUNDS=10."""

from __future__ import annotations

import os
import statistics

import pytest

from tests.faults.failover import BOUND_S, CASES, Case, Failover, measure, settle
from tests.lab import Lab

ROUNDS = int(os.environ.get("ROUNDS", "10"))

pytestmark = pytest.mark.soak


def test_every_failover_of_a_campaign_is_in_time() -> None:
    found: dict[Case, list[Failover]] = {case: [] for case in CASES}
    with Lab("soak") as lab:
        lab.wait_formed()
        lab.import_busybox()
        settle(lab)
        for number in range(ROUNDS):
            for case in CASES:
                one = measure(lab, case, f"{case}{number}")
                found[case].append(one)
                print(f"round {number}: {one}", flush=True)
                if one.worst > BOUND_S:
                    print(one.trace, flush=True)
    for case, all_of in found.items():
        took = [one.worst for one in all_of]
        middle = statistics.median(took)
        print(f"{case}: {len(took)} kills, {min(took):.2f} / {middle:.2f} / {max(took):.2f} s (min / median / max)")
    slow = [str(one) for all_of in found.values() for one in all_of if one.worst > BOUND_S]
    assert not slow, "\n".join(slow)
