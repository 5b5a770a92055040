"""The engine's plan when a unit's machine no longer is what its file asks for."""

from __future__ import annotations

import pytest

from fleetd.registry import keys
from tests.unit.fleetd.plans import three


def test_a_global_unit_leaves_machines_that_it_no_longer_suits() -> None:
    cluster = three()
    cluster.unit("g.service", "Global=true\nConflicts=g.*")
    cluster.plan()
    assert cluster.where("g.service") == ["a", "b", "c"]
    cluster.unit("g.service", "Global=true\nMachineMetadata=disk=ssd\nConflicts=g.*")
    assert cluster.plan() == ["g.service launched on b", "g.service launched on c", "g.service off a"]
    cluster.machine("b", {"disk": "hdd"})
    assert cluster.plan() == ["g.service off b"]
    cluster.machine("a", {"disk": "ssd"})
    assert cluster.plan() == ["g.service launched on a"]
    assert cluster.plan() == []


def test_a_global_unit_that_goes_makes_room() -> None:
    cluster = three()
    cluster.unit("g.service", "Global=true")
    cluster.plan()
    cluster.unit("x.service", "MachineID=a\nConflicts=g.service")
    cluster.plan()
    cluster.unit("g.service", "Global=true\nMachineMetadata=disk=ssd")
    said = cluster.plan()
    assert {"g.service off a", "x.service launched on a"} <= set(said)


@pytest.mark.parametrize("fleet", ["MachineMetadata=disk=ssd", "MachineID=b", "MachineOf=y.service", "Conflicts=z*"])
def test_a_new_file_that_excludes_the_machine_moves_the_unit(fleet: str) -> None:
    cluster = three()
    for unit, machine in (("x", "a"), ("y", "b"), ("z", "a")):
        cluster.unit(f"{unit}.service", f"MachineID={machine}")
    cluster.plan()
    cluster.unit("x.service", fleet)
    said = cluster.plan()
    (now,) = cluster.where("x.service")
    assert now != "a"
    assert said == [f"x.service launched on {now}", "x.service off a"]
    assert cluster.plan() == []


def test_a_unit_moves_when_its_machine_s_metadata_no_longer_suits() -> None:
    cluster = three()
    cluster.unit("x.service", "MachineMetadata=disk=hdd")
    cluster.plan()
    cluster.machine("b", {"disk": "hdd"})
    assert cluster.plan() == []
    cluster.machine("a", {"disk": "ssd"})
    assert cluster.plan() == ["x.service launched on b", "x.service off a"]
    cluster.machine("b", {})
    assert cluster.plan() == [
        "x.service off b",
        "x.service: None of 3 machines will do: 3 without metadata disk=hdd.",
    ]


def test_a_unit_goes_where_its_peer_moves() -> None:
    cluster = three()
    cluster.unit("db.service", "MachineID=c")
    cluster.unit("web.service", "MachineOf=db.service")
    cluster.plan()
    cluster.unit("db.service", "MachineID=a")
    cluster.plan()
    assert (cluster.where("db.service"), cluster.where("web.service")) == (["a"], ["a"])
    cluster.delete(keys.unit("db.service"))
    cluster.plan()
    assert cluster.where("web.service") == []
    cluster.unit("db.service", "MachineID=b")
    cluster.plan()
    assert cluster.where("web.service") == ["b"]


def test_a_unit_that_conflicts_with_its_own_kind_stays() -> None:
    cluster = three()
    for index in range(3):
        cluster.unit(f"web@{index}.service", "Conflicts=web@*.service")
    cluster.plan()
    before = [cluster.where(f"web@{index}.service") for index in range(3)]
    for index in range(3):
        cluster.unit(f"web@{index}.service", "Conflicts=web@*.service\nConflicts=other")
    assert len(cluster.plan()) == 3
    assert [cluster.where(f"web@{index}.service") for index in range(3)] == before


def test_a_machine_that_returns_keeps_no_unit_that_it_no_longer_suits() -> None:
    cluster = three()
    cluster.unit("x.service", "MachineMetadata=disk=hdd\nRescheduleAfter=60")
    cluster.plan()
    cluster.dies("a")
    cluster.plan()
    cluster.unit("x.service", "MachineMetadata=disk=ssd\nRescheduleAfter=60")
    cluster.machine("a", {"disk": "hdd"}, lease=2)
    cluster.asks("a", 2, "x.service")
    assert cluster.plan() == ["answer a", "x.service launched on b", "x.service off a"]
