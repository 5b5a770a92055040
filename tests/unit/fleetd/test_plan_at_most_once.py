"""StopWhenIsolated= units of a lost machine: whatever users want meanwhile, none is started elsewhere too early."""

from __future__ import annotations

import pytest

from fleetd.registry import keys
from tests.unit.fleetd.plans import Cluster, three

PATIENCE_S = 14.0
SERVICE = "TimeoutStopSec=10"
FLEET = "StopWhenIsolated=4"


def lost(fleet: str = FLEET) -> tuple[Cluster, str]:
    """A unit whose machine was lost just now, and that machine."""
    cluster = three()
    cluster.unit("x.service", fleet, service=SERVICE)
    cluster.plan()
    (machine,) = cluster.where("x.service")
    cluster.dies(machine)
    assert cluster.plan() == []
    return cluster, machine


@pytest.mark.parametrize("destroyed", [True, False])
def test_unloaded_and_loaded_again_it_waits_all_the_same(destroyed: bool) -> None:
    cluster, machine = lost()
    if destroyed:
        cluster.delete(keys.unit("x.service"))
    else:
        cluster.unit("x.service", FLEET, "inactive", SERVICE)
    assert cluster.plan(after=1) == [f"x.service loaded on {machine}"]
    cluster.unit("x.service", FLEET, service=SERVICE)
    assert cluster.plan(after=1) == []
    assert cluster.plan(after=PATIENCE_S - 2.1) == []
    moved = cluster.plan(after=0.2)
    assert f"x.service off {machine}" in moved and cluster.where("x.service") != [machine]


def test_unloaded_for_good_it_goes_when_it_can_run_no_more() -> None:
    cluster, machine = lost()
    cluster.delete(keys.unit("x.service"))
    cluster.plan(after=1)
    assert cluster.planner.due_next == cluster.now + PATIENCE_S - 1
    assert cluster.plan(after=PATIENCE_S) == [f"x.service off {machine}"]
    assert cluster.planner.due_next is None


def test_a_file_that_promises_less_starts_it_no_earlier() -> None:
    cluster, machine = lost()
    cluster.unit("x.service", FLEET, "inactive", SERVICE)
    cluster.plan(after=1)
    cluster.unit("x.service")
    assert cluster.plan(after=1) == [] and cluster.where("x.service") == [machine]


def test_another_unit_is_let_go_at_once() -> None:
    cluster, machine = lost("RescheduleAfter=60")
    cluster.unit("x.service", "RescheduleAfter=60", "inactive", SERVICE)
    assert cluster.plan(after=1) == [f"x.service off {machine}"]


def test_its_machine_is_back_in_time() -> None:
    cluster, machine = lost()
    cluster.unit("x.service", FLEET, "inactive", SERVICE)
    cluster.plan(after=1)
    cluster.machine(machine, lease=2)
    assert cluster.plan(after=1) == [f"x.service off {machine}"]
