"""Most of the cluster dies at once: what lives goes on, and nothing moves before the engine has waited."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.reality import Clock, processes, start, starts, wait_agreed
from tests.lab import PATIENCE_S, Lab, until

pytestmark = pytest.mark.lab

UNITS = [f"mass{number}" for number in range(6)]
AWAY_S = 7.0
"""Longer than the 2 TTL after which the store's silence counts."""
HOLD_S = 9.0
"""3 TTL."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab("labmass") as made:
        made.wait_formed()
        start(made, "m1", *UNITS)
        yield made


def alarm(lab: Lab, asked: str) -> str:
    """What list-machines says of an alarm; empty also while nobody answers."""
    done = lab.attempt(asked, "fleetctl", "list-machines")
    said = done.stderr.decode() if done.returncode == 0 else ""
    return said.removeprefix("fleetctl: alarm: ").strip() if "alarm: " in said else ""


def test_two_of_three_die_and_the_third_ones_units_wait(lab: Lab) -> None:
    before = wait_agreed(lab, "m3", len(UNITS))
    on = {name: {u: w for u, w in before.items() if name in w.values()} for name in lab.names}
    assert all(on.values())
    clock = Clock()
    lab.lab("kill", "m1", "m2")
    until("more than 6 s", lambda: clock.seconds() > AWAY_S, AWAY_S + 1)
    assert processes(lab) == on["m3"], "the survivor's units were touched"
    lab.lab("start", "m1")
    clock = Clock()
    until("the store's answer", lambda: lab.attempt("m3", "kvctl", "get", "/none").returncode == 0, PATIENCE_S)
    clock.say("m1 is on again and the store answers")
    told = until("an alarm", lambda: alarm(lab, "m3"), PATIENCE_S)
    clock.say(told)

    def moved() -> bool:
        return all(set(processes(lab).get(unit, {}).values()) for unit in on["m2"])

    until("m2's units running elsewhere", moved, PATIENCE_S)
    took = clock.seconds()
    clock.say("m2's units run elsewhere")
    assert took >= HOLD_S, "m2's units moved before 3 TTL were over"
    after = wait_agreed(lab, "m3", len(UNITS))
    assert {u: after[u] for u in on["m3"]} == on["m3"], "the survivor's units were restarted"
    until("the alarm's end", lambda: not alarm(lab, "m3"), PATIENCE_S)
    lab.lab("start", "m2")
    lab.wait_formed()
    clock.say("m2 is back")
    assert wait_agreed(lab, "m3", len(UNITS)) == after, "the return of m2 moved units"
    assert all(starts(lab, unit.removesuffix(".service")) == 1 for unit in on["m3"])
