"""Machines are killed and started again, fleetds too: nothing is adopted from another boot, nothing runs twice."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.faults import beats
from tests.faults.failover import settle
from tests.faults.trace import ROOT
from tests.lab import Lab, until

pytestmark = pytest.mark.lab

PLAIN, BOXED = 8, 2
WAIT_S = 40.0
Counts = dict[str, int]


class Cluster:
    """Ten beating units on three machines."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.units = beats.start(lab, PLAIN, BOXED)
        self.steady()

    def boots(self) -> dict[str, str]:
        """Machine-id -> the boot that its presence tells."""
        lines = self.lab.on(self.asked(), "etcdctl", "get", "--prefix", f"{ROOT}presence/").splitlines()
        pairs = zip(lines[::2], lines[1::2], strict=True)
        return {key.rpartition("/")[2]: str(json.loads(value)["boot"]) for key, value in pairs}

    def asked(self) -> str:
        """A machine that answers."""
        return next(str(one["name"]) for one in self.lab.status()["machines"] if one["answers"])

    def steady(self) -> None:
        """Wait until each unit beats once, on the machine and in the boot that the cluster names."""
        settle(self.lab)

        def well() -> bool:
            told, boots = self.lab.units(self.asked()), self.boots()
            for name in self.units:
                now, row = beats.live(self.lab, name), told.get(f"{name}.service")
                if len(now) != 1 or row is None or row["sub"] != "running" or now[0].machine != row["machine"]:
                    return False
                assert now[0].boot == boots[now[0].machine], f"{name} runs in a boot that is over: {now[0]}"
            return True

        try:
            until("every unit beating where the cluster says", well, WAIT_S, pause=0.3)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.story()}") from None

    def story(self) -> str:
        """All lives of all units."""
        lines = [f"now {beats.uptime():.2f}"]
        for name in self.units:
            lines += [f"{name}: {run}" for run in beats.runs(self.lab, name)]
        return "\n".join(lines)

    def lives(self) -> Counts:
        """How often each unit was started so far."""
        return {name: len(beats.runs(self.lab, name)) for name in self.units}

    def on(self, *machines: str) -> set[str]:
        """The units that beat on these machines now."""
        ids = {self.lab.machine(one)["machine_id"] for one in machines}
        return {name for name in self.units if any(run.machine in ids for run in beats.live(self.lab, name))}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Lab("reboots") as lab:
        lab.wait_formed()
        lab.import_busybox()
        yield Cluster(lab)


def check(cluster: Cluster, victims: tuple[str, ...], fault: Callable[[], None]) -> None:
    """Let a fault happen to machines: each of their units lives once more, the others go on, and none runs twice."""
    before, hit, begin = cluster.lives(), cluster.on(*victims), beats.uptime()
    fault()
    cluster.steady()
    after = cluster.lives()
    print(f"\n{len(hit)} units of {', '.join(victims)} run again after {beats.uptime() - begin:.1f} s at most")
    twice = {name: found for name in cluster.units if (found := beats.overlaps(beats.runs(cluster.lab, name)))}
    assert not twice, f"{twice}\n{cluster.story()}"
    expected = {name: count + (name in hit) for name, count in before.items()}
    assert after == expected, f"lives before {before}, after {after}, hit {hit}\n{cluster.story()}"


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
