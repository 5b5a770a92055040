"""A fourth machine has no member of the store; its gateway serves applications, whichever voter stops or goes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator

import pytest

from tests.lab import PATIENCE_S, Lab, until

pytestmark = pytest.mark.lab

NOTICED_S = 60.0
"""Generous: two questions a second apart, then another member is dialled."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab("clientmachine", 3) as lab:
        lab.wait_formed()
        lab.lab("start", "m4")
        until("four machines", lambda: len(_machines(lab)) == 4, PATIENCE_S)
        until("the gateway", lambda: lab.attempt("m4", "etcdctl", "get", "x").returncode == 0, PATIENCE_S)
        yield lab


def _machines(lab: Lab) -> list[str]:
    done = lab.attempt("m1", "fleetctl", "list-machines", "--no-legend")
    return done.stdout.decode().splitlines() if done.returncode == 0 else []


def program(lab: Lab, machine: str, name: str) -> str:
    """The pid, inside the machine, of a program that fleetd keeps running there."""
    return str(json.loads(lab.on(machine, "cat", f"/run/fleetd/{name}.pid"))["pid"])


def behind(lab: Lab) -> str:
    """The voter that the gateway of m4 has a connection to, '' for none."""
    mark = f"pid={program(lab, 'm4', 'kvgateway')},"
    connections = lab.on("m4", "ss", "-Htnp", "state", "established", "dport", "=", ":2379").splitlines()
    names = {lab.machine(name)["address"]: name for name in ("m1", "m2", "m3")}
    found = [name for at, name in names.items() for line in connections if mark in line and f"{at}:2379" in line]
    return found[0] if found else ""


def test_etcdctl_works_on_a_machine_without_a_member(lab: Lab) -> None:
    lab.on("m4", "etcdctl", "put", "color", "blue")
    assert lab.on("m1", "etcdctl", "get", "color").split() == ["color", "blue"]
    assert len(lab.voters("m4")) == 3
    lab.on("m4", "fleetctl", "submit", lab.unit_file("there.service", "[Service]\nExecStart=/bin/sleep 9\n"))


def test_a_stopped_voter_is_noticed_and_so_is_a_killed_one(lab: Lab) -> None:
    watch = lab.popen("m4", "etcdctl", "watch", "seen")
    assert watch.stdout is not None
    os.set_blocking(watch.stdout.fileno(), False)
    said = b""

    def heard(value: str) -> bool:
        nonlocal said
        lab.attempt("m1" if victim != "m1" else "m2", "etcdctl", "put", "seen", value)
        assert watch.stdout is not None
        said += watch.stdout.read() or b""
        return value.encode() in said

    victim = "none"
    stopped: list[tuple[str, str]] = []
    try:
        until("the watch", lambda: heard("first"), PATIENCE_S)
        leader = str(lab.status()["store_leader"])
        victim = _connected(lab)
        stopped.append((victim, program(lab, victim, "kvstore")))
        lab.on(victim, "kill", "-STOP", stopped[0][1])
        begin = time.monotonic()
        until("a read through the gateway", lambda: _reads(lab), NOTICED_S)
        print(f"{victim} (leader: {leader}) stopped: a read after {time.monotonic() - begin:.1f} s", end=", ")
        until("the watch goes on", lambda: heard("second"), NOTICED_S)
        print(f"the watch that was open goes on after {time.monotonic() - begin:.1f} s")
        lab.on(victim, "kill", "-CONT", stopped.pop()[1])

        victim = _connected(lab)
        begin = time.monotonic()
        lab.lab("kill", victim)
        until("a read through the gateway", lambda: _reads(lab), NOTICED_S)
        until("the watch goes on", lambda: heard("third"), NOTICED_S)
        print(f"{victim} lost its power: read and watch after {time.monotonic() - begin:.1f} s")
        lab.lab("start", victim)
        until("three voters answer", lambda: lab.attempt(victim, "etcdctl", "get", "x").returncode == 0, PATIENCE_S)
    finally:
        for name, pid in stopped:
            lab.on(name, "kill", "-CONT", pid)
        lab.end(watch)


def _reads(lab: Lab) -> bool:
    return lab.attempt("m4", "etcdctl", "--command-timeout=2s", "get", "color").returncode == 0


def _connected(lab: Lab) -> str:
    return until("a connection of the gateway", lambda: behind(lab), PATIENCE_S)
