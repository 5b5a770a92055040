"""What a machine registered is gone from the store when its containers stop, and when the whole machine dies."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.faults.failover import settle
from tests.faults.trace import ROOT, StoreTrace
from tests.lab import Lab, until

pytestmark = pytest.mark.lab

WAIT_S = 90.0
AT_ONCE_S = 1.0
"""After the command that stopped the container has returned."""
BOUND_S = 6.0
TRIES = 3
"""Two labs on few processors may take longer once."""
OBEDIENT = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done")
UNIT = """[Service]
ExecStart=/usr/bin/docker run --rm --name %p busybox sh -c "trap 'exit 0' TERM; while :; do sleep 0.05; done"
Restart=always
RestartSec=1
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab("registrations") as lab:
        lab.wait_formed()
        lab.import_busybox()
        settle(lab)
        yield lab


def registered(lab: Lab, asked: str, machine: str) -> dict[str, str]:
    """Name -> id of the containers that a machine has in the store."""
    prefix = f"{ROOT}containers/{lab.machine(machine)['machine_id']}/"
    lines = lab.on(asked, "etcdctl", "get", "--prefix", prefix).splitlines()
    return {json.loads(value)["name"]: key.removeprefix(prefix) for key, value in zip(*[iter(lines)] * 2, strict=True)}


def run_container(lab: Lab, machine: str, name: str) -> str:
    """Run a container by docker's own client; returns its id once it is registered."""
    lab.on(machine, "docker", "run", "-d", "--name", name, "busybox", *OBEDIENT)
    return until(f"{name} registered", lambda: registered(lab, "m1", machine).get(name, ""), WAIT_S)


@pytest.mark.parametrize("client", ["docker", "dock"])
def test_a_stopped_containers_registration_is_gone_at_once(lab: Lab, client: str) -> None:
    took: list[float] = []
    while not took or took[-1] >= AT_ONCE_S:
        assert len(took) < TRIES, f"seconds from the command's return: {took}"
        name = f"by-{client}-{len(took)}"
        key = f"containers/{lab.machine('m2')['machine_id']}/{run_container(lab, 'm2', name)}"
        with StoreTrace(lab, "m1") as trace:
            begin = time.time()
            lab.on("m2", client, "stop", name)
            returned = time.time()
            gone = until("the registration's end", lambda: trace.when(key, after=begin, deleted=True), WAIT_S)  # noqa: B023
        print(
            f"\n{client} stop: gone from the store on another machine {(gone - begin) * 1000:.0f} ms after the command "
            f"was entered, {(gone - returned) * 1000:+.0f} ms from its return"
        )
        took.append(gone - returned)


def test_dock_stop_of_a_units_container_registers_another(lab: Lab) -> None:
    lab.on("m1", "fleetctl", "start", lab.unit_file("kept.service", UNIT))
    machine = until("kept.service running", lambda: lab.running_on("kept.service", "m1"), WAIT_S)
    first = until("its container registered", lambda: registered(lab, "m1", machine).get("kept", ""), WAIT_S)
    prefix = f"containers/{lab.machine(machine)['machine_id']}/"
    with StoreTrace(lab, "m1") as trace:
        begin = time.time()
        lab.on(machine, "dock", "stop", "kept")
        gone = until("the registration's end", lambda: trace.when(prefix + first, after=begin, deleted=True), WAIT_S)
        again = until("the next registration", lambda: trace.when(prefix, after=begin), WAIT_S)
    print(f"\ndock stop in a unit: gone after {(gone - begin) * 1000:.0f} ms, another after {again - begin:.2f} s")
    second = registered(lab, "m1", machine)["kept"]
    assert gone <= again and second != first, "Restart=always applies to a stopped container"
    lab.on("m1", "fleetctl", "destroy", "kept.service")


def test_a_dead_machines_registrations_vanish_by_themselves(lab: Lab) -> None:
    files = [lab.unit_file(f"spread{at}.service", UNIT) for at in (1, 2, 3)]
    lab.on("m1", "fleetctl", "start", *files)
    victim = until("spread1.service running", lambda: lab.running_on("spread1.service", "m1"), WAIT_S)
    asked, third = (name for name in lab.names if name != victim)
    run_container(lab, victim, "free")
    run_container(lab, third, "elsewhere")
    victim_id = lab.machine(victim)["machine_id"]
    presence = json.loads(lab.on(asked, "etcdctl", "get", f"{ROOT}presence/{victim_id}", "-w", "json"))
    lease = format(presence["kvs"][0]["lease"], "x")
    service = f"services/web/{victim}"  # an application's own, under the machine's lease
    lab.on(asked, "etcdctl", "put", f"--lease={lease}", ROOT + service, "{}")
    others = registered(lab, asked, third)
    held = lab.on(asked, "etcdctl", "get", "--prefix", "--keys-only", ROOT).split()
    mine = {key.removeprefix(ROOT) for key in held if key.startswith(ROOT)}
    mine = {key for key in mine if victim_id in key and key.startswith(("containers/", "states/", "presence/"))}
    mine.add(service)
    assert len([key for key in mine if key.startswith("containers/")]) >= 2
    assert any(key.startswith("states/") for key in mine)
    with StoreTrace(lab, asked) as trace:
        killed = lab.kill(victim)
        until("the end of all its registrations", lambda: mine <= trace.gone(("",), killed).keys(), WAIT_S)
    ends = {key: at - killed for key, at in trace.gone(("",), killed).items() if key in mine}
    print(f"\n{len(ends)} registrations of a dead machine gone after {min(ends.values()):.2f} s")
    assert max(ends.values()) < BOUND_S
    assert len({one.revision for one in trace.seen if one.key in mine and one.value is None}) == 1, "the lease's end"
    assert others.items() <= registered(lab, asked, third).items()
    assert lab.on(asked, "etcdctl", "get", "--keys-only", f"{ROOT}machines/{victim_id}").strip(), "machines/ stays"
