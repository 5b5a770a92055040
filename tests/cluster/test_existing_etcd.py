"""Machines whose store is an etcd that was there before (`--kv-endpoints`): they form, place and fail over, and leave
its membership alone."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conformance.members import etcd_path
from tests.lab import Lab, until

pytestmark = [pytest.mark.lab, pytest.mark.skipif(etcd_path() is None, reason="etcd is not here: run make setup")]

SWITCH = "10.77.0.254"
"""The lab's own address in its network; etcd stands there, on none of the machines."""
CLIENTS, PEERS = f"http://{SWITCH}:12379", "http://127.0.0.1:12380"
PATIENCE_S = 30.0
NAMES = ("m1", "m2", "m3")


@contextmanager
def etcd(lab: Lab, folder: Path) -> Iterator[None]:
    """Debian's etcd in the lab's network."""
    urls = [f"--listen-client-urls={CLIENTS}", f"--advertise-client-urls={CLIENTS}", f"--listen-peer-urls={PEERS}"]
    urls += [f"--initial-advertise-peer-urls={PEERS}", f"--initial-cluster=default={PEERS}"]
    command = ["ip", "netns", "exec", f"fleet-lab-{lab.name}", str(etcd_path()), f"--data-dir={folder}/data", *urls]
    with (folder / "etcd.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def test_machines_run_on_an_etcd_that_was_there(tmp_path: Path) -> None:
    with Lab("foreign", 3, "--kv-endpoints", CLIENTS, hold=NAMES) as lab, etcd(lab, tmp_path):
        for name in NAMES:
            lab.lab("start", name)
        unit = lab.unit_file("nap.service", "[Service]\nExecStart=/bin/sleep 100000\n")
        until("a unit runs", lambda: lab.attempt("m1", "fleetctl", "start", unit).returncode == 0, PATIENCE_S)
        until("three machines", lambda: len(lab.on("m1", "fleetctl", "list-machines").splitlines()) == 4, PATIENCE_S)
        first = lab.running_on("nap.service", "m1")
        assert first is not None
        other = next(name for name in NAMES if name != first)
        lab.kill(first)
        until("it runs elsewhere", lambda: lab.running_on("nap.service", other) not in (None, first), PATIENCE_S)
        members = lab.on(other, "kvctl", "--endpoints", CLIENTS, "member", "list").splitlines()
        assert len(members) == 1 and "started, default" in members[0]
