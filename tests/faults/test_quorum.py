"""The store without its quorum for two minutes: units go on as if nothing were, and nothing is moved afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.faults.reality import Clock, processes, start, starts, wait_agreed
from tests.lab import PATIENCE_S, Lab, until

pytestmark = pytest.mark.lab

UNITS = [f"quorum{number}" for number in range(6)]
AWAY_S = 120.0
HOLD_S = 9.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab("labquorum") as made:
        made.wait_formed()
        start(made, "m1", *UNITS)
        yield made


def leases(lab: Lab) -> dict[str, int]:
    """Machine-id -> the lease that its presence hangs on."""
    done = lab.attempt("m1", "kvctl", "get", "--prefix", "/fleet/v1/presence/", "--json")
    found = json.loads(done.stdout)["kvs"] if done.returncode == 0 else []
    return {str(kv["key"]).rsplit("/", 1)[-1]: int(kv["lease"]) for kv in found}


def test_two_minutes_without_a_quorum_change_nothing(lab: Lab) -> None:
    before = wait_agreed(lab, "m1", len(UNITS))
    held = leases(lab)
    assert len(held) == 3
    clock = Clock()
    for name in ("m1", "m2"):  # three islands
        lab.lab("partition", name)
    until("the store's silence", lambda: lab.attempt("m3", "kvctl", "get", "/none").returncode != 0, PATIENCE_S)
    clock.say("no quorum")
    lab.lab("restart-daemon", "m3")

    def over() -> bool:
        assert processes(lab) == before, "units were touched while the store had no quorum"
        return clock.seconds() > AWAY_S

    until("two minutes without a quorum", over, AWAY_S + 60, pause=5.0)
    lab.lab("heal", "m1", "m2")  # at once: a lease goes on for its TTL from when there is a leader again
    clock = Clock()
    until("the store's answer", lambda: leases(lab), PATIENCE_S)
    clock.say("the store answers again")
    wait_agreed(lab, "m1", len(UNITS))
    until("the end of the hold", lambda: clock.seconds() > HOLD_S + 3, HOLD_S + 60, pause=1.0)
    assert leases(lab) == held, "a lease was lost though its machine lived"
    for asked in lab.names:
        assert wait_agreed(lab, asked, len(UNITS)) == before, "units were touched after the quorum was back"
    clock.say("every unit has the pid that it had")
    assert all(starts(lab, name) == 1 for name in UNITS)
