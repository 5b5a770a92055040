"""Network namespaces made ahead: a container takes one, and neither a killed nor a stopped daemon leaves any."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.network import pool
from tests.conformance.containers import Machine, ask, requires, running
from tests.lab import until

pytestmark = requires
SECONDS = 60


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with running(tmp_path) as made:
        yield made


def links(machine: Machine) -> set[int]:
    """The bridge's ports, by index."""
    command = ("ip", "-n", machine.namespace, "-j", "link", "show", "master", "dock0")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return {item["ifindex"] for item in json.loads(done.stdout or "[]")}


def sleeper(machine: Machine, name: str) -> tuple[int, str]:
    """Start a container; answer the index of its link's outer end, and its address."""
    script = "cat /sys/class/net/eth0/iflink; ip -4 -o addr show eth0; exec sleep 300"
    machine.dock("run", "-d", f"--name={name}", "busybox", "sh", "-c", script.replace("ip -4", "busybox ip -4"))
    until("what it says", lambda: machine.dock("logs", name).stdout.count("\n") == 2, SECONDS)
    index, line = machine.dock("logs", name).stdout.splitlines()
    return int(index), line.split()[3].partition("/")[0]


def test_a_container_takes_what_was_made_ahead_and_a_killed_daemon_leaves_nothing(machine: Machine) -> None:
    first, address = sleeper(machine, "first")
    until("all that is made ahead", lambda: len(links(machine)) == 1 + pool.SIZE, SECONDS)
    ahead = links(machine) - {first}
    second, other = sleeper(machine, "second")
    assert second in ahead and other != address
    machine.down(signal.SIGKILL)
    until("nothing but theirs", lambda: links(machine) == {first, second}, SECONDS)
    machine.up()
    third, another = sleeper(machine, "third")
    assert third not in ahead and another not in (address, other)
    machine.dock("rm", "-f", "first", "second", "third")
    machine.down()
    until("nothing at all", lambda: not links(machine), SECONDS)
    machine.up()


def test_an_address_that_is_asked_for_is_given_or_refused(machine: Machine) -> None:
    _, address = sleeper(machine, "first")
    until("all that is made ahead", lambda: len(links(machine)) == 1 + pool.SIZE, SECONDS)
    head, _, last = address.rpartition(".")
    waits = f"{head}.{int(last) + 1}"  # made ahead already
    for wanted in (waits, f"{head}.77"):
        done = machine.dock(
            "run", "--rm", "--ip", wanted, "busybox", "busybox", "ip", "-4", "-o", "addr", "show", "eth0"
        )
        assert f" {wanted}/" in done.stdout, done.stderr
    taken = machine.dock("run", "--rm", "--ip", address, "busybox", "true")
    assert taken.returncode == 125 and f"The address {address} is taken" in taken.stderr
    body = {
        "Image": "busybox",
        "NetworkingConfig": {"EndpointsConfig": {"bridge": {"IPAMConfig": {"IPv4Address": "no"}}}},
    }
    refused = ask(machine, "POST", "/containers/create", body)
    assert refused.status == 400 and "'no' is not an IPv4 address" in refused.read().decode()


def test_a_bridge_that_a_killed_daemon_left_without_an_address_gets_one(machine: Machine) -> None:
    subprocess.run(["ip", "-n", machine.namespace, "link", "add", "dock0", "type", "bridge"], check=True)
    _, address = sleeper(machine, "first")
    assert address == "172.17.0.2"
