"""Machines are killed and started again, fleetds too: nothing is adopted from another boot, nothing runs twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.faults.beats import WAIT_S, Cluster, check
from tests.lab import Lab, until

pytestmark = pytest.mark.lab

PLAIN, BOXED = 8, 2


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Lab("reboots") as lab:
        lab.wait_formed()
        lab.import_busybox()
        yield Cluster(lab, PLAIN, BOXED)


def test_a_machine_that_stays_away_and_comes_back(cluster: Cluster) -> None:
    lab = cluster.lab

    def fault() -> None:
        moved = cluster.on("m1")
        lab.kill("m1")
        until("its units elsewhere", lambda: moved <= cluster.on("m2", "m3"), WAIT_S)
        lab.lab("start", "m1")

    check(cluster, ("m1",), fault)


@pytest.mark.parametrize("pause", [0.0, 1.0, 1.8, 2.4])
def test_a_machine_that_reboots_before_its_lease_is_over_or_just_then(cluster: Cluster, pause: float) -> None:
    lab = cluster.lab
    victim = max(lab.names, key=lambda name: len(cluster.on(name)))

    def fault() -> None:
        lab.kill(victim)
        threading.Event().wait(pause)  # what is tried: the machine is back at another moment of its old lease
        lab.lab("start", victim)

    check(cluster, (victim,), fault)


def test_reboots_while_fleetds_restart(cluster: Cluster) -> None:
    lab = cluster.lab
    victim, first, second = sorted(lab.names, key=lambda name: -len(cluster.on(name)))

    def fault() -> None:
        lab.lab("restart-daemon", first)
        lab.kill(victim)
        lab.lab("restart-daemon", second)
        lab.lab("start", victim)
        lab.lab("restart-daemon", victim)
        lab.lab("restart-daemon", first)

    check(cluster, (victim,), fault)


def test_a_power_cut_of_all_machines(cluster: Cluster) -> None:
    lab = cluster.lab

    def fault() -> None:
        lab.lab("kill", *lab.names)
        for name in lab.names:
            lab.lab("start", name)

    check(cluster, tuple(lab.names), fault)
