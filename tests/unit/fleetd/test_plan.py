"""The engine's plan: what each change leads to."""

from __future__ import annotations

import random
import time

import pytest

from agent.units.model import XFleet
from fleetd.engine.commit import batches
from fleetd.engine.decisions import Alarm, Explain, Group, Place, Unplace
from fleetd.registry import keys
from fleetd.registry.records import Placed
from fleetd.scheduler.choose import Refused, Request, choose
from fleetd.scheduler.globs import GlobIndex
from fleetd.scheduler.indices import Indices
from tests.unit.fleetd.plans import Cluster, three


def test_a_wish_is_placed_and_followed() -> None:
    cluster = three()
    cluster.unit("x.service", "MachineMetadata=disk=hdd", "loaded")
    assert cluster.plan() == ["x.service loaded on a"]
    cluster.unit("x.service", "MachineMetadata=disk=hdd")
    assert cluster.plan() == ["x.service launched on a"]
    assert cluster.plan() == []
    cluster.unit("x.service", "MachineMetadata=disk=hdd", "inactive")
    assert cluster.plan() == ["x.service off a"]


def test_a_destroyed_unit_leaves_its_machine() -> None:
    cluster = three()
    cluster.unit("x.service", "MachineID=b")
    cluster.plan()
    cluster.delete(keys.unit("x.service"))
    assert cluster.plan() == ["x.service off b"]


def test_units_spread_over_the_least_loaded() -> None:
    cluster = three()
    for index in range(30):
        cluster.unit(f"x{index}.service")
    cluster.plan()
    assert sorted(node.load for node in cluster.snapshot.indices.nodes.values()) == [10, 10, 10]


@pytest.mark.parametrize(
    ("fleet", "reason"),
    [
        ("MachineID=zz", "None of 3 machines will do: 3 other than MachineID=zz."),
        ("MachineMetadata=disk=tape", "None of 3 machines will do: 3 without metadata disk=tape."),
        ("MachineOf=y.service", "MachineOf=y.service: y.service is not placed on any machine yet."),
        (
            "MachineMetadata=disk=hdd\nConflicts=busy*",
            "None of 3 machines will do: 1 with a unit that matches Conflicts=busy*; 2 without metadata disk=hdd.",
        ),
        ("Global=true\nMachineMetadata=disk=tape", "No machine satisfies what this Global unit asks for."),
    ],
)
def test_what_no_machine_takes_is_explained(fleet: str, reason: str) -> None:
    cluster = three()
    cluster.unit("busy.service", "MachineID=a")
    cluster.plan()
    cluster.unit("x.service", fleet)
    assert cluster.plan() == [f"x.service: {reason}"]
    assert cluster.plan() == []


def test_a_waiting_unit_is_placed_when_a_machine_comes() -> None:
    cluster = three()
    cluster.unit("x.service", "MachineMetadata=disk=tape")
    cluster.plan()
    cluster.machine("d", {"disk": "tape"})
    assert cluster.plan() == ["x.service launched on d", "x.service: ok"]


def test_a_unit_follows_its_peer() -> None:
    cluster = three()
    cluster.unit("web.service", "MachineOf=db.service")
    cluster.plan()
    cluster.unit("db.service", "MachineID=c")
    assert cluster.plan() == ["db.service launched on c", "web.service launched on c", "web.service: ok"]


def test_conflicts_hold_in_both_directions() -> None:
    cluster = three()
    for index in range(1, 5):
        cluster.unit(f"web@{index}.service", "Conflicts=web@*.service")
    cluster.plan()
    assert sorted(m for i in range(1, 5) for m in cluster.where(f"web@{i}.service")) == ["a", "b", "c"]
    cluster.unit("quiet.service", "MachineID=a\nConflicts=noise.service")
    cluster.plan()
    cluster.unit("noise.service", "MachineID=a")
    (said,) = cluster.plan()
    assert "1 with a unit that conflicts with noise.service" in said


def test_a_conflict_that_goes_makes_room() -> None:
    cluster = three()
    cluster.unit("one.service", "MachineID=a\nConflicts=two.service")
    cluster.unit("two.service", "MachineID=a")
    cluster.plan()
    cluster.delete(keys.unit("one.service"))
    assert cluster.plan() == ["one.service off a", "two.service launched on a", "two.service: ok"]


def test_replaces_sends_the_other_away() -> None:
    cluster = three()
    cluster.unit("old.service")
    cluster.plan()
    (machine,) = cluster.where("old.service")
    cluster.unit("new.service", f"MachineID={machine}\nReplaces=old.service")
    cluster.plan()
    assert cluster.where("new.service") == [machine]
    assert machine not in cluster.where("old.service")
    assert len(cluster.where("old.service")) == 1


def test_a_global_unit_is_everywhere_also_where_a_machine_comes_later() -> None:
    cluster = three()
    cluster.unit("g.service", "Global=true\nMachineMetadata=disk=ssd")
    assert cluster.plan() == ["g.service launched on b", "g.service launched on c"]
    cluster.machine("d", {"disk": "ssd"})
    assert cluster.plan() == ["g.service launched on d"]


def test_a_bad_file_is_explained() -> None:
    cluster = three()
    cluster.unit("x.service", service="TimeoutStopSec=abc")
    (said,) = cluster.plan()
    assert said.startswith("x.service: The unit file can't be read: x.service:3:")


def test_a_dead_machine_s_units_move_at_once() -> None:
    cluster = three()
    cluster.unit("x.service", "MachineMetadata=disk=ssd")
    cluster.plan()
    (machine,) = cluster.where("x.service")
    other = "c" if machine == "b" else "b"
    cluster.dies(machine)
    assert cluster.plan() == [f"x.service launched on {other}", f"x.service off {machine}"]


@pytest.mark.parametrize(
    ("fleet", "patience"),
    [("RescheduleAfter=7", 7.0), ("StopWhenIsolated=4", 14.0), ("RescheduleAfter=60\nStopWhenIsolated=4", 60.0)],
)
def test_patience_of_a_unit(fleet: str, patience: float) -> None:
    cluster = three()
    cluster.unit("x.service", fleet, service="TimeoutStopSec=10")
    cluster.plan()
    before = cluster.where("x.service")
    cluster.dies(*before)
    assert cluster.plan() == []
    assert cluster.planner.due_next == cluster.now + patience
    assert cluster.plan(after=patience - 0.1) == []
    assert len(cluster.plan(after=0.1)) == 2
    assert cluster.where("x.service") != before


def test_a_file_that_a_lost_machine_can_t_have_seen_does_not_shorten_its_wait() -> None:
    cluster = three()
    cluster.unit("x.service", "StopWhenIsolated=4", service="TimeoutStopSec=10")
    cluster.plan()
    before = cluster.where("x.service")
    cluster.dies(*before)
    cluster.plan()
    cluster.unit("x.service")
    assert cluster.plan(after=1) == []
    cluster.unit("x.service", "Conflicts=y.service")
    assert cluster.plan(after=12.9) == []
    assert len(cluster.plan(after=0.1)) == 2
    assert cluster.where("x.service") != before


def test_a_machine_that_is_back_gets_the_new_file() -> None:
    cluster = three()
    cluster.unit("x.service", "RescheduleAfter=60")
    cluster.plan()
    (home,) = cluster.where("x.service")
    cluster.dies(home)
    cluster.plan()
    cluster.unit("x.service", "RescheduleAfter=60", "loaded")
    assert cluster.plan() == []
    cluster.machine(home, lease=2)
    assert cluster.plan() == [f"x.service loaded on {home}"]


def test_a_machine_back_in_time_keeps_its_unit() -> None:
    cluster = three()
    cluster.unit("x.service", "RescheduleAfter=7")
    cluster.plan()
    before = cluster.where("x.service")
    cluster.dies(*before)
    cluster.plan()
    cluster.machine(before[0], lease=2)
    assert cluster.plan(after=20) == []
    assert cluster.where("x.service") == before


def test_mass_death_holds_everything_for_three_ttl() -> None:
    cluster = three()
    for index in range(6):
        cluster.unit(f"x{index}.service")
    cluster.plan()
    cluster.dies("b", "c")
    assert cluster.plan() == ["alarm"]
    assert cluster.planner.due_next == cluster.now + 9
    assert cluster.plan(after=8.9) == []
    moved = cluster.plan(after=0.1)
    assert "no alarm" in moved
    assert all(cluster.where(f"x{i}.service") == ["a"] for i in range(6))


def test_mass_death_counts_what_a_new_engine_finds_missing() -> None:
    old = three()
    for index in range(3):
        old.unit(f"x{index}.service")
    old.plan()
    cluster = Cluster()
    kvs = [cluster.kv(keys.presence("a"), keys.encode(boot="b", address=""), 1)]
    for unit, wish in old.snapshot.wishes.items():
        kvs.append(cluster.kv(keys.unit(unit), wish.value()))
        for placed in old.snapshot.placements[unit].values():
            kvs.append(cluster.kv(keys.placement(placed.machine, unit), placed.value()))
    cluster.snapshot.load(tuple(kvs))
    said = cluster.plan()
    assert "alarm" in said
    assert not [word for word in said if " off " in word or " on " in word]


def test_one_of_three_or_two_far_apart_is_no_mass_death() -> None:
    cluster = three()
    cluster.unit("x.service", "MachineID=a")
    cluster.plan()
    cluster.dies("b")
    cluster.plan()
    cluster.dies("c")
    assert cluster.plan(after=6.1) == []
    assert cluster.planner.brake.alarm == ""


def test_silence_of_the_store_holds() -> None:
    cluster = three()
    cluster.unit("x.service")
    cluster.plan()
    before = cluster.where("x.service")
    cluster.planner.brake.silence(cluster.now)
    cluster.dies(*before)
    assert cluster.plan() == ["alarm"]
    assert len(cluster.plan(after=9)) == 3


@pytest.mark.parametrize("replacement_runs", [False, True])
def test_a_returning_machine_keeps_what_runs_nowhere_else(replacement_runs: bool) -> None:
    cluster = three()
    cluster.unit("x.service")
    cluster.plan()
    (home,) = cluster.where("x.service")
    cluster.dies(home)
    cluster.plan()
    (other,) = cluster.where("x.service")
    if replacement_runs:
        cluster.runs("x.service", other)
    cluster.machine(home, lease=2)
    cluster.plan()
    cluster.asks(home, 2, "x.service")
    expected = [] if replacement_runs else [f"x.service launched on {home}", f"x.service off {other}"]
    assert cluster.plan() == [f"answer {home}", *expected]
    assert cluster.where("x.service") == [other if replacement_runs else home]
    assert cluster.plan() == []


def test_a_question_under_another_lease_is_not_answered() -> None:
    cluster = three()
    cluster.machine("a", lease=5)
    cluster.asks("a", 4)
    assert cluster.plan() == []


def test_batches_keep_groups_whole_and_keys_single() -> None:
    def move(unit: str) -> Group:
        return (Unplace(unit, "a"), Place(Placed(unit, "b", "f", "launched")), Explain(unit, ""))

    packed = list(batches([move(f"x{i}") for i in range(100)], limit=10))
    assert all(len(batch.writes) == 9 for batch in packed[:-1])
    assert sum(len(batch.writes) for batch in packed) == 300
    twice = list(batches([(Alarm("x"),), (Alarm(""),)], limit=10))
    assert [next(iter(batch.writes.values())) is None for batch in twice] == [False, True]


def test_glob_index_agrees_with_trying_all() -> None:
    from fnmatch import fnmatchcase

    globs = ["*", "web@*.service", "web@1.service", "w?b.service", "db.service", "[dw]*.service"]
    index = GlobIndex()
    for glob in globs:
        assert index.add(glob)
    index.add("*")
    for name in ("web@1.service", "db.service", "web.service", "x"):
        assert sorted(index.matches(name)) == sorted(g for g in globs if fnmatchcase(name, g))
    assert not index.remove("*")
    assert index.remove("*")
    assert index.matches("x") == []


def test_indices_agree_with_counting_from_scratch() -> None:
    generator = random.Random(7)
    indices = Indices()
    fleet = XFleet(conflicts=("u1*",))
    for step in range(2000):
        machine, unit = f"m{generator.randrange(8)}", f"u{generator.randrange(40)}"
        if machine not in indices.nodes:
            indices.add_node(machine, {"k": str(step % 3)})
        elif generator.random() < 0.05:
            indices.remove_node(machine)
        elif generator.random() < 0.5:
            indices.add_unit(machine, unit, fleet if generator.random() < 0.3 else XFleet())
        else:
            indices.remove_unit(machine, unit)
        matching = {m for m, n in indices.nodes.items() if any(u.startswith("u1") for u in n.units)}
        assert set(indices.machines_matching("u1*")) == matching
        refusing = {m for m, n in indices.nodes.items() if any(f.conflicts for f in n.units.values())}
        assert {m for found in indices.machines_refusing("u12") for m in found} == refusing
        assert [n.load for n in indices.by_load()] == sorted(n.load for n in indices.nodes.values())
        assert len(list(indices.by_load())) == len(indices.nodes)


def test_placing_is_fast_and_does_not_slow_down_with_units() -> None:
    indices = Indices()
    for index in range(5000):
        indices.add_node(f"{index:032x}", {"zone": str(index % 10)})
    kinds = [XFleet(), XFleet(machine_metadata=(("zone", "3"),)), XFleet(conflicts=("web@*.service",))]

    def place(count: int, start: int) -> float:
        began = time.process_time()
        for index in range(start, start + count):
            request = Request(f"web@{index}.service" if index % 3 == 2 else f"x{index}.service", kinds[index % 3], {})
            chosen = choose(request, indices)
            assert not isinstance(chosen, Refused)
            indices.add_unit(chosen, request.unit, request.fleet)
        return count / (time.process_time() - began)

    first, later = place(3000, 0), place(3000, 3000)
    assert later > 5_000, f"{first:.0f}/s, then {later:.0f}/s"
    assert later > first / 4
