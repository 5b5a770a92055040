"""Machines become one cluster, whatever is late or dies on the way, and say who is missing until they are.

The moments between a promise and a founding are short: the tests watch the machines' own files for them and cut the
power at once. Where a kill comes too late for the moment, the cluster must form all the same.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cli.lab import machine as machines
from cli.lab.lab import Lab as Record
from tests.lab import PATIENCE_S, Lab, until

pytestmark = pytest.mark.lab

LATE_S = 20.0
"""Far beyond every timeout in forming."""
SLEEPER = "[Service]\nExecStart=/bin/sleep 1000\n"


def cluster_file(lab: Lab, name: str) -> dict[str, Any]:
    """A machine's record of its cluster, empty when it has none."""
    path = Path(Record.load(lab.name).dir) / name / "data/cluster.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found


def cut_power(lab: Lab, *names: str) -> None:
    """As `fleet-lab kill`, without the time that a command takes to start."""
    record = Record.load(lab.name)
    machines.kill(*(record.machine(name) for name in names))


def answer(lab: Lab, name: str, *command: str) -> str:
    """What a refused command says; it must be refused."""
    done = lab.attempt(name, *command)
    said = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == 1, said
    assert "Traceback" not in said
    return said


def one_cluster(lab: Lab, *names: str) -> str:
    """Wait until these machines are in one cluster that takes units; its id."""

    def formed() -> bool:
        status = {one["name"]: one for one in lab.status()["machines"]}
        return all(status[name]["answers"] and not status[name]["waits_for"] for name in names)

    try:
        until(f"a cluster of {', '.join(names)}", formed, PATIENCE_S)
    except AssertionError as error:
        waits = {name: lab.machine(name)["waits_for"] for name in names}
        logs = "\n".join(f"{name}: {lab.log_of(name)}" for name in names)
        raise AssertionError(f"{error}: {waits}\n{logs}") from error
    for name in names:
        lab.wait_formed(name, len(names))
    (cluster,) = {str(cluster_file(lab, name)["cluster_id"]) for name in names}
    return cluster


@contextmanager
def about_to_form(name: str) -> Iterator[tuple[Lab, str, str]]:
    """A lab whose third machine is off, the machine that will found once it is on, and one that will pledge."""
    with Lab(name, hold=("m3",)) as lab:
        until("m1 and m2 see each other", lambda: "2 of 3" in lab.machine("m1")["waits_for"], PATIENCE_S)
        ids = {name: machine_id for machine_id, name in lab.ids().items()}
        founder, other = sorted(("m1", "m2"), key=lambda one: ids[one])
        yield lab, founder, other


def when(lab: Lab, name: str, true: Callable[[dict[str, Any]], bool], victim: str) -> bool:
    """Start m3, and cut the victim's power the moment that a machine's record says so; whether the moment was met."""
    with ThreadPoolExecutor(1) as pool:
        start = pool.submit(lab.lab, "start", "m3")
        end = time.monotonic() + PATIENCE_S
        while not true(cluster_file(lab, name)):
            assert time.monotonic() < end, f"{name} never came so far: {lab.log_of(name)}"
            time.sleep(0.0005)
        cut_power(lab, victim)
        start.result()
    return true(cluster_file(lab, name))


def test_late_machines_strangers_and_twins() -> None:
    with Lab("formlate", hold=("m2", "m3")) as lab:
        began = time.monotonic()
        unit = lab.unit_file("late.service", SLEEPER)
        for command in (("list-machines",), ("start", unit), ("list-units",)):
            said = answer(lab, "m1", "fleetctl", *command)
            assert "in no cluster yet: 1 of 3 machines are here" in said
        lab.lab("start", "m4", "--", "--cluster-name", "other", "--bootstrap-expect", "2")
        until("m4 sees m1", lambda: "belongs to 'fleet'" in lab.machine("m4")["waits_for"], PATIENCE_S)
        assert "1 of 2 machines are here" in answer(lab, "m4", "fleetctl", "list-machines")
        time.sleep(max(0.0, began + LATE_S - time.monotonic()))
        assert "1 of 3 machines are here" in lab.machine("m1")["waits_for"]
        assert cluster_file(lab, "m1") == {}
        begin = time.monotonic()
        lab.lab("start", "m2")
        lab.lab("start", "m3")
        one_cluster(lab, "m1", "m2", "m3")
        print(f"one cluster {time.monotonic() - begin:.1f} s after the late machines were powered on")
        lab.on("m1", "fleetctl", "start", unit)
        assert lab.machine("m4")["waits_for"]
        lab.lab("kill", "m4")

        # A twin is turned away with a sentence and an exit code, and the cluster goes on.
        twin = lab.notes / "twin-id"
        twin.write_text(lab.on("m2", "cat", "/etc/machine-id"))
        lab.lab("start", "m5", "--", "--machine-id-file", str(twin))
        words = f"the machine at {lab.machine('m2')['address']}:7480 has this machine's id"
        until("m5 gives way", lambda: words in lab.log_of("m5"), PATIENCE_S)
        lab.lab("stop-daemon", "m5")
        fleetd = ("fleetd", "--insecure", "--listen-address", lab.machine("m5")["address"], "--bootstrap-expect", "3")
        assert words in answer(lab, "m5", *fleetd, "--machine-id-file", str(twin))
        assert len(lab.on("m1", "fleetctl", "list-machines", "--no-legend").splitlines()) == 3

        # So is a copy of a whole machine: it must not even start the store's member.
        folder = Path(Record.load(lab.name).dir)
        shutil.copytree(folder / "m2/data", folder / "m6/data")
        (folder / "m6/data/lock").unlink()
        lab.lab("start", "m6", "--", "--machine-id-file", str(twin))
        until("m6 gives way", lambda: words in lab.log_of("m6"), PATIENCE_S)
        assert "started kvstore" not in lab.log_of("m6")
        lab.lab("kill", "m6")

        # Units were accepted once: they are for good, however few are left to vote.
        lab.lab("kill", "m3")
        lab.on("m1", "fleetctl", "submit", lab.unit_file("after.service", SLEEPER))


def test_a_machine_killed_between_its_pledge_and_the_founding() -> None:
    with about_to_form("formpledge") as (lab, _, other):
        lower = sorted(lab.ids())
        met = when(lab, other, lambda record: bool(record.get("pledged_to")), other)
        ids = sorted(lab.ids())
        print(f"m3 {'is' if ids[0] not in lower else 'is not'} the lowest; killed while pledged: {met}")
        left = [name for name in lab.names if name != other]
        words = (
            "machines are here",
            "vote in the store",
            "give",
            "asking",
            "waiting",
            "founding",
            "not answer",
            "does",
        )
        for name in left:
            why = lab.machine(name)["waits_for"]
            assert why and any(word in why for word in words), why
            print(f"{name}: {why}")
            answer(lab, name, "fleetctl", "start", lab.unit_file("early.service", SLEEPER))
        lab.lab("start", other)
        one_cluster(lab, *lab.names)


def test_the_founder_killed_before_the_first_promotion() -> None:
    with about_to_form("formfound") as (lab, _, _):
        record = Record.load(lab.name)
        founders = ThreadPoolExecutor(1)
        start = founders.submit(lab.lab, "start", "m3")
        founder = until(
            "one founds",
            lambda: next((n for n in lab.names if cluster_file(lab, n).get("phase") == "founding"), ""),
            PATIENCE_S,
            0.0005,
        )
        machines.kill(record.machine(founder))
        start.result()
        cluster = cluster_file(lab, founder)["cluster_id"]
        print(f"the founder {founder} was killed in phase {cluster_file(lab, founder)['phase']}")
        for name in lab.names:
            if name != founder:
                said = answer(lab, name, "fleetctl", "start", lab.unit_file("early.service", SLEEPER))
                print(f"{name}: {said.strip()}")
        lab.lab("start", founder)
        assert one_cluster(lab, *lab.names) == cluster


@pytest.mark.parametrize("moment", ["founded", "joined"])
def test_all_lose_power_while_voters_join(moment: str) -> None:
    with about_to_form("formany") as (lab, *_):
        wanted = 1 if moment == "founded" else 2
        unit = lab.unit_file("alone.service", SLEEPER)
        lab.lab("start", "m3")

        def members() -> bool:
            return len([n for n in lab.names if cluster_file(lab, n).get("phase") == "member"]) >= wanted

        until(f"{wanted} are members", members, PATIENCE_S, 0.0005)
        cut_power(lab, *lab.names)
        phases = {name: cluster_file(lab, name).get("phase", "none") for name in lab.names}
        print(f"{moment}: {phases} when the power went")
        alone = [name for name, phase in phases.items() if phase == "member"]
        if len(alone) == 1:
            # Until the voters were reached, the founder may be told to wait for fewer.
            lab.lab("start", alone[0])
            until("the founder waits", lambda: "1 of 3 machines vote" in lab.machine(alone[0])["waits_for"], PATIENCE_S)
            lab.lab("kill", alone[0])
            lab.lab("start", alone[0], "--", "--bootstrap-expect", "1")
            until(
                "the founder takes units",
                lambda: lab.attempt(alone[0], "fleetctl", "submit", unit).returncode == 0,
                PATIENCE_S,
            )
        for name in lab.names:
            if lab.machine(name)["state"] == "off":
                lab.lab("start", name)
        one_cluster(lab, *lab.names)


def test_a_lab_of_one_is_a_cluster() -> None:
    with Lab("formone", 1) as lab:
        lab.wait_formed()
        lab.on("m1", "fleetctl", "start", lab.unit_file("one.service", SLEEPER))


def test_who_is_named_to_nobody_can_found() -> None:
    """Without multicast, and the later founder in no --peers: those that pledged to it know it by its asking."""
    names = ("m1", "m2", "m3")
    with Lab("formnamed", 3, hold=names) as lab:
        founder, *others = sorted(names, key=lambda name: str(lab.machine(name)["machine_id"]))
        peers = ",".join(str(lab.machine(name)["address"]) for name in others)
        for name in (*others, founder):
            lab.lab("start", name, "--", "--no-mdns", "--peers", peers)
        one_cluster(lab, *names)
