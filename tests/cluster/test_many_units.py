"""A thousand units placed over three machines, while the engine reads nothing: it goes by what it follows."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.lab import Lab, until

pytestmark = pytest.mark.lab

UNITS = 1_000
PLACED_WITHIN_S = 60.0
"""Generous on two busy cores; the real figure is printed."""
RANGES_ALLOWED = 100
"""Of fleetd's API and of agents that read one file, not of the engine: one a unit would be a thousand."""
TEMPLATE = "[Unit]\nDescription=Number %i\n[Service]\nExecStart=/bin/sleep 100000\n"
WEDGE = "/fleet/v1/placements/"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab("manyunits", 3) as lab:
        lab.wait_formed()
        yield lab


def ranges(lab: Lab) -> int:
    """Ranges that all stores have served since they started, those inside transactions included."""
    total = 0
    for name in lab.names:
        text = lab.on(name, "curl", "-s", "http://127.0.0.1:2379/metrics")
        found = re.search(r"^etcd_mvcc_range_total (\d+)", text, re.MULTILINE)
        assert found is not None
        total += int(found[1])
    return total


def placed(lab: Lab) -> dict[str, list[str]]:
    """Machine-id -> units that are placed there."""
    found: dict[str, list[str]] = {}
    for key in lab.on("m2", "kvctl", "get", "--prefix", WEDGE, "--keys-only").split():
        machine, unit = key.removeprefix(WEDGE).split("/")
        found.setdefault(machine, []).append(unit)
    return found


def wait_placed(lab: Lab, count: int) -> list[int]:
    """Wait until so many units are placed; how many on each machine that has some, ascending."""
    sizes: list[int] = []

    def reached() -> bool:
        sizes[:] = sorted(map(len, placed(lab).values()))
        return sum(sizes) == count

    until(f"{count} placements", reached, PLACED_WITHIN_S)
    return sizes


def test_a_thousand_units_are_placed_without_a_range_of_the_engine(lab: Lab) -> None:
    lab.unit_file("u@.service", TEMPLATE)
    names = [f"{lab.notes}/u@{at}.service" for at in range(UNITS)]
    before = ranges(lab)
    begin = time.monotonic()
    said = lab.on("m1", "fleetctl", "load", "--no-block", *names)
    asked = time.monotonic() - begin
    assert len(said.splitlines()) == UNITS
    sizes = wait_placed(lab, UNITS)
    took = time.monotonic() - begin
    read = ranges(lab) - before
    print(f"{UNITS} units: fleetctl {asked:.1f} s, all placed after {took:.1f} s ({UNITS / took:.0f}/s), {read} ranges")
    assert read < RANGES_ALLOWED
    assert len(sizes) == 3 and sizes[-1] - sizes[0] <= 1, sizes

    begin = time.monotonic()
    lab.on("m3", "fleetctl", "list-units", "--no-legend")
    lab.on("m3", "fleetctl", "list-unit-files", "--no-legend")
    print(f"both lists of {UNITS} units: {time.monotonic() - begin:.1f} s")

    before, begin = ranges(lab), time.monotonic()
    lab.on("m2", "fleetctl", "unload", "--no-block", "u@*")
    wait_placed(lab, 0)
    print(f"unloaded after {time.monotonic() - begin:.1f} s, {ranges(lab) - before} ranges")
