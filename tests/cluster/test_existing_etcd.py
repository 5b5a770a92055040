"""Machines whose store is an etcd that was there before (`--kv-endpoints`): they form, place and fail over, and leave
its membership alone."""

from __future__ import annotations

import pytest

from tests import etcdlab
from tests.conformance.members import etcd_path
from tests.lab import PATIENCE_S, Lab, until

pytestmark = [pytest.mark.lab, pytest.mark.skipif(etcd_path() is None, reason="etcd is not here: run make setup")]


def test_machines_run_on_an_etcd_that_was_there() -> None:
    with Lab("foreign", 3, store="etcd") as lab:
        unit = lab.unit_file("nap.service", "[Service]\nExecStart=/bin/sleep 100000\n")
        until("a unit runs", lambda: lab.attempt("m1", "fleetctl", "start", unit).returncode == 0, PATIENCE_S)
        until("three machines", lambda: len(lab.on("m1", "fleetctl", "list-machines").splitlines()) == 4, PATIENCE_S)
        first = lab.running_on("nap.service", "m1")
        assert first is not None
        other = next(name for name in lab.names if name != first)
        lab.kill(first)
        until("it runs elsewhere", lambda: lab.running_on("nap.service", other) not in (None, first), PATIENCE_S)
        urls = etcdlab.client_urls()
        members = lab.on(other, "kvctl", "--endpoints", ",".join(urls), "member", "list").splitlines()
        assert len(members) == etcdlab.COUNT
        assert all(f"started, e{number}" in line for number, line in enumerate(sorted(members, key=by_name)))


def by_name(line: str) -> str:
    return line.split(", ")[2]
