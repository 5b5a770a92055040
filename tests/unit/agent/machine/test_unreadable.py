"""A placement that can't be read stops nothing, also when nobody knows the one before, and is told with a sentence."""

from __future__ import annotations

import os

import pytest

from tests.unit.agent.machine.fix_machine import Machine

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="control groups need root")
TEXT = "[Service]\nExecStart=/bin/sleep 600\n"
WHY = "The record has version 2; this program reads up to 1. Upgrade fleetd on this machine."


@pytest.mark.parametrize("copy_kept", [True, False])
async def test_what_runs_goes_on_through_a_restart_of_fleetd(machine: Machine, copy_kept: bool) -> None:
    await machine.cluster.place("x.service", TEXT)
    state = await machine.cluster.until("x.service", lambda s: s is not None and s.main_pid is not None)
    assert state is not None
    await machine.kill()
    if not copy_kept:
        (machine.root / "data/units/placements.json").unlink()
    await machine.cluster.garble("x.service", WHY)
    machine.cluster.reports.clear()
    await machine.start()
    told = await machine.cluster.until("x.service", lambda s: s is not None and s.why == WHY)
    assert told is not None and (told.sub, told.main_pid) == ("running", state.main_pid)
    await machine.cluster.place("y.service", TEXT)
    await machine.cluster.until_sub("y.service", "running")
    assert machine.cluster.reports["x.service"].main_pid == state.main_pid
    await machine.cluster.place("x.service", TEXT)
    clear = await machine.cluster.until("x.service", lambda s: s is not None and s.why == "")
    assert clear is not None and clear.main_pid == state.main_pid
    await machine.cluster.garble("x.service", WHY)
    await machine.cluster.take_away("x.service")
    await machine.cluster.until("x.service", lambda s: s is None)


async def test_one_that_never_was_here_is_told_of_until_it_goes(machine: Machine) -> None:
    await machine.cluster.garble("x.service", WHY)
    told = await machine.cluster.until("x.service", lambda s: s is not None)
    assert told is not None and (told.load, told.active, told.why) == ("error", "inactive", WHY)
    await machine.cluster.place("x.service", TEXT)
    await machine.cluster.until_sub("x.service", "running")
    await machine.cluster.garble("z.service", WHY)
    await machine.cluster.until("z.service", lambda s: s is not None)
    await machine.cluster.take_away("z.service")
    await machine.cluster.until("z.service", lambda s: s is None)
