"""Machines come back with other addresses, one of them or all: the cluster finds itself again. One of the four is no
voter and reaches the store through a gateway."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.reality import Clock, names, start, starts, wait_agreed
from tests.lab import Lab, until

pytestmark = pytest.mark.lab

UNITS = [f"moved{number}" for number in range(8)]
FORMED_TIMEOUT_S = 120.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab("labmoved", 4) as made:
        made.wait_formed()
        start(made, "m1", *UNITS)
        yield made


def known(lab: Lab, asked: str) -> dict[str, set[str]]:
    """Name of each machine -> the hosts by which store and registry know it."""
    machines = lab.attempt(asked, "fleetctl", "list-machines", "--full", "--no-legend")
    found: dict[str, set[str]] = {}
    for line in machines.stdout.decode().splitlines():
        machine, address = line.split()[:2]
        found.setdefault(names(lab)[machine], set()).add(address)
    for member in lab.voters(asked):
        for url in (*member["peerURLs"], *member["clientURLs"][:1]):
            found.setdefault(names(lab)[member["name"]], set()).add(url.split("/")[2].partition(":")[0])
    return found


def come_back(lab: Lab, addresses: dict[str, str], clock: Clock) -> None:
    for name, address in addresses.items():
        lab.lab("start", name, "--address", address)
    wanted = {one["name"]: {one["address"]} for one in lab.status()["machines"]}
    clock.say("they are on")
    until(
        f"all knowing all by {wanted}",
        lambda: all(known(lab, asked) == wanted for asked in lab.names),
        FORMED_TIMEOUT_S,
    )
    clock.say(f"store and registry know {', '.join(addresses)} by the new addresses")
    for asked in lab.names:
        wait_agreed(lab, asked, len(UNITS))
    clock.say("every unit runs once, where every machine says")


def test_all_machines_come_back_elsewhere(lab: Lab) -> None:
    before = wait_agreed(lab, "m1", len(UNITS))
    lab.on("m1", "kvctl", "put", "/kept", "this")
    clock = Clock()
    lab.lab("kill", *lab.names)
    come_back(lab, {name: f"10.77.0.{number}" for number, name in enumerate(lab.names, 31)}, clock)
    after = wait_agreed(lab, "m2", len(UNITS))
    for unit, where in before.items():
        assert set(after[unit].values()) == set(where.values()), f"{unit} moved although its machine came back"
        assert starts(lab, unit.removesuffix(".service")) == 2
    for asked in lab.names:
        assert "this" in lab.on(asked, "kvctl", "get", "/kept")


def test_one_voter_comes_back_elsewhere(lab: Lab) -> None:
    clock = Clock()
    one = names(lab)[lab.voters()[0]["name"]]
    lab.lab("kill", one)
    come_back(lab, {one: "10.77.0.52"}, clock)


def test_two_voters_swap_their_addresses(lab: Lab) -> None:
    clock = Clock()
    one, two = (names(lab)[member["name"]] for member in lab.voters()[:2])
    at = {machine["name"]: machine["address"] for machine in lab.status()["machines"]}
    lab.lab("kill", one, two)
    lab.lab("start", one, "--address", "10.77.0.61")  # no two machines of a lab may have one address
    lab.lab("kill", one)
    come_back(lab, {two: at[one], one: at[two]}, clock)
