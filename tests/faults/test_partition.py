"""A machine cut off from the others, both ways and one way: its units move, and on its return nothing runs twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.reality import Clock, processes, running, start, starts, wait_agreed
from tests.lab import PATIENCE_S, Lab, until

pytestmark = pytest.mark.lab

UNITS = [f"part{number}" for number in range(6)]
MOVED_TIMEOUT_S = 90.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab("labpart") as made:
        made.wait_formed()
        start(made, "m1", *UNITS)
        yield made


def leader(lab: Lab, of: str) -> str:
    """Who leads the store or the engine."""
    return until(f"a leader of the {of}", lambda: str(lab.status()[f"{of}_leader"] or ""), PATIENCE_S)


@pytest.mark.parametrize(("direction", "victim"), [("both", "engine"), ("in", "store"), ("out", "store"), ("in", "m1")])
def test_a_machine_cut_off_loses_its_units_and_comes_back_in_order(lab: Lab, direction: str, victim: str) -> None:
    cut = victim if victim in lab.names else leader(lab, victim)
    asked = next(name for name in lab.names if name != cut)
    fresh, pinned, patient = (f"{kind}-{direction}-{victim}" for kind in ("fresh", "pinned", "patient"))
    here = f"MachineID={lab.machine(cut)['machine_id']}\n"
    start(lab, asked, pinned, fleet=here)
    start(lab, asked, patient, fleet=f"{here}RescheduleAfter=600")
    start(lab, asked, *(f"{fresh}{number}" for number in range(len(lab.names))))
    count = len(UNITS) + 2 + len(lab.names)
    before = wait_agreed(lab, asked, count)
    there = {unit for unit, where in before.items() if cut in where.values()}
    staying = {f"{pinned}.service", f"{patient}.service"}
    moving = there - staying
    assert moving and staying <= there
    clock = Clock()
    lab.lab("partition", cut, *([] if direction == "both" else [f"--{direction}"]))

    def moved() -> bool:
        told = running(lab, asked)
        return all(told.get(unit, cut) != cut for unit in moving)

    until(f"{sorted(moving)} moving away from {cut}", moved, MOVED_TIMEOUT_S)
    clock.say(f"{len(moving)} units of {cut} ({victim}, {direction}) run elsewhere")
    during = processes(lab)
    for unit, where in before.items():
        assert where.items() <= during[unit].items(), f"{unit} was stopped by the partition"
    lab.lab("heal", cut)
    clock = Clock()
    after = wait_agreed(lab, asked, count)
    clock.say("after the heal each unit runs once, where list-units says")
    wait_agreed(lab, cut, count)
    for unit in before.keys() - moving:
        assert after[unit] == before[unit], f"{unit} had no replacement and was restarted"
    assert starts(lab, pinned) == starts(lab, patient) == 1
    lab.on(asked, "fleetctl", "destroy", *(name.removesuffix(".service") for name in staying), f"{fresh}*")
    wait_agreed(lab, asked, len(UNITS))
