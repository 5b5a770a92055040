"""A machine that boots again: what its supervisor starts, and what it forgets."""

from __future__ import annotations

import os

import pytest

from agent.cgroups import Cgroup
from tests.unit.agent.machine.fix_machine import Machine

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="control groups need root")


async def test_after_a_reboot_nothing_runs_until_the_cluster_speaks(machine: Machine) -> None:
    await machine.cluster.place("calm.service", "[Service]\nExecStart=/bin/sleep 60\n")
    free = "[Service]\nExecStart=/bin/sleep 60\n[X-Fleet]\nRunWhenIsolated=true\n"
    await machine.cluster.place("free.service", free)
    for name in ("calm.service", "free.service"):
        await machine.cluster.until_sub(name, "running")
    await machine.kill()
    for name in ("calm.service", "free.service"):
        Cgroup(name, root=machine.cgroups).kill()
    machine.boot = "boot-2"
    machine.cluster.reports.clear()
    machine.cluster.cut_off = True
    await machine.start()
    await machine.cluster.until_sub("free.service", "running")
    assert "calm.service" not in machine.cluster.reports
    machine.cluster.cut_off = False
    await machine.cluster.place("calm.service", "[Service]\nExecStart=/bin/sleep 60\n")
    await machine.cluster.until_sub("calm.service", "running")


async def test_a_record_that_can_not_be_removed_holds_nothing_up(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    await machine.cluster.place("moved.service", "[Service]\nExecStart=/bin/true\n")
    await machine.cluster.until_sub("moved.service", "dead")
    await machine.kill()
    machine.boot = "boot-2"
    machine.cluster.cut_off = True
    await machine.start()
    record = machine.root / "data/units/moved.service.json"
    record.unlink()
    record.mkdir()  # what no unlink(2) removes
    machine.cluster.cut_off = False
    await machine.cluster.take_away("moved.service")
    await machine.cluster.place("other.service", "[Service]\nExecStart=/bin/sleep 60\n")
    await machine.cluster.until_sub("other.service", "running")
    assert "the record of moved.service" in caplog.text
