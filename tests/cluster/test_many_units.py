"""A thousand units placed over three machines, and some of them started, while the engine reads nothing: it goes by
what it follows. Counted by the engine's own client, and at the stores, whose count is explained to the last range."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab import Lab, until

pytestmark = pytest.mark.lab

UNITS = 1_000
STARTED = 150
PLACED_WITHIN_S = 120.0
STARTED_WITHIN_S = 240.0
"""Generous on two busy cores; the real figures are printed."""
BALANCED_WITHIN_S = 90.0
OTHERS_PER_UNIT = 0.1
"""Ranges of fleetd's API and of agents that read one file: one a unit would be a thousand."""
TEMPLATE = "[Unit]\nDescription=Number %i\n[Service]\nExecStart=/bin/sleep 100000\n"
PLACEMENTS = "/fleet/v1/placements/"
SENT = 'fleetd_store_requests_total{{sender="{}",request="range"}}'
SERVED = "etcd_mvcc_range_total"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab("manyunits", 3) as lab:
        lab.wait_formed()
        yield lab


def leader(lab: Lab) -> str:
    """The machine whose engine leads."""
    return str(until("an engine leading", lambda: lab.status()["engine_leader"], BALANCED_WITHIN_S))


@dataclass(frozen=True)
class Ranges:
    """Ranges since the cluster began, those inside transactions included: sent by the engines' clients, by the other
    clients of the fleetds, and served by all stores."""

    engine: int
    others: int
    served: int

    @classmethod
    def counted(cls, lab: Lab) -> Ranges:
        """Scraped while the cluster is still, so that nothing comes between one count and the next."""
        seen: list[Ranges] = []

        def still() -> bool:
            seen.append(cls._scraped(lab))
            return len(seen) > 1 and seen[-1] == seen[-2]

        until("the counts of ranges standing still", still, BALANCED_WITHIN_S)
        return seen[-1]

    @classmethod
    def _scraped(cls, lab: Lab) -> Ranges:
        total: Counter[str] = Counter()
        for name in lab.names:
            total.update(json.loads(lab.on(name, sys.executable, "-m", "tests.scrape")))
        return cls(int(total[SENT.format("engine")]), int(total[SENT.format("machine")]), int(total[SERVED]))

    def __sub__(self, earlier: Ranges) -> Ranges:
        return Ranges(self.engine - earlier.engine, self.others - earlier.others, self.served - earlier.served)


class Reader:
    """Looks at the placements through the store, and counts how often it did: each time is a range, too."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.ranges = 0

    def placed(self) -> list[int]:
        """How many units are placed on each machine that has some, ascending."""
        self.ranges += 1
        listed = self._lab.on("m2", "kvctl", "get", "--prefix", PLACEMENTS, "--keys-only").split()
        return sorted(Counter(key.removeprefix(PLACEMENTS).partition("/")[0] for key in listed).values())

    def wait_placed(self, count: int) -> list[int]:
        """Wait until so many units are placed; the result is `placed`'s."""
        sizes: list[int] = []

        def reached() -> bool:
            sizes[:] = self.placed()
            return sum(sizes) == count

        until(f"{count} placements", reached, PLACED_WITHIN_S)
        return sizes


def files(lab: Lab, count: int) -> list[str]:
    lab.unit_file("u@.service", TEMPLATE)
    return [f"{lab.notes}/u@{at}.service" for at in range(count)]


def test_a_thousand_units_are_placed_without_a_range_of_the_engine(lab: Lab) -> None:
    leading, before, reader = leader(lab), Ranges.counted(lab), Reader(lab)
    assert before.engine > 0, "an engine that begins to lead reads everything once"
    begin = time.monotonic()
    said = lab.on("m1", "fleetctl", "load", "--no-block", *files(lab, UNITS))
    asked = time.monotonic() - begin
    assert len(said.splitlines()) == UNITS
    sizes = reader.wait_placed(UNITS)
    took = time.monotonic() - begin
    read = Ranges.counted(lab) - before
    print(f"{UNITS} units: fleetctl {asked:.1f} s, all placed after {took:.1f} s ({UNITS / took:.0f}/s), {read}")
    assert read.engine == 0 and leader(lab) == leading
    assert read.served == read.others + reader.ranges, "somebody else reads, the engine past its client perhaps"
    assert read.others < UNITS * OTHERS_PER_UNIT
    assert len(sizes) == 3 and sizes[-1] - sizes[0] <= 1, sizes

    begin = time.monotonic()
    lab.on("m3", "fleetctl", "list-units", "--no-legend")
    lab.on("m3", "fleetctl", "list-unit-files", "--no-legend")
    print(f"both lists of {UNITS} units: {time.monotonic() - begin:.1f} s")


def test_units_of_them_start_on_every_machine_without_a_range_of_the_engine(lab: Lab) -> None:
    leading, before = leader(lab), Ranges.counted(lab)
    begin = time.monotonic()
    lab.on("m3", "fleetctl", "start", "--no-block", *(f"u@{at}.service" for at in range(STARTED)))
    running: Counter[str] = Counter()

    def reached() -> bool:
        running.clear()
        running.update(one["machine"] for one in lab.units("m1").values() if one["sub"] == "running")
        return running.total() == STARTED

    until(f"{STARTED} units running", reached, STARTED_WITHIN_S)
    print(f"{STARTED} units: all running after {time.monotonic() - begin:.1f} s, {dict(running)}")
    read = Ranges.counted(lab) - before
    assert read.engine == 0 and leader(lab) == leading
    assert read.served == read.others, "somebody else reads, the engine past its client perhaps"
    assert len(running) == 3

    begin = time.monotonic()
    before, reader = Ranges.counted(lab), Reader(lab)
    lab.on("m2", "fleetctl", "unload", "--no-block", "u@*")
    reader.wait_placed(0)
    read = Ranges.counted(lab) - before
    print(f"unloaded after {time.monotonic() - begin:.1f} s, {read}")
    assert read.engine == 0 and leader(lab) == leading
