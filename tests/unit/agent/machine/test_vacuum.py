"""The limit of all journals of a machine: what is dropped first, and what never is."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from agent import vacuum
from tests.unit.agent.machine.fix_machine import Machine

KILO = 1024
DAY_S = 86400.0


def folder(root: Path, name: str, age: float, kilobytes: int = 100) -> Path:
    """A process's folder that was written last so many seconds ago."""
    path = root / name
    path.mkdir(parents=True)
    (path / "log.1").write_bytes(b"x" * kilobytes * KILO)
    at = time.time() - age
    for one in (path / "log.1", path, path.parent):
        os.utime(one, (at, at))
    return path


def test_the_oldest_go_first_whatever_their_unit(tmp_path: Path) -> None:
    oldest = folder(tmp_path, "gone.service/000001-start", 4000)
    used = folder(tmp_path, "a.service/000001-start", 3000)
    second = folder(tmp_path, "a.service/000002-start", 2000)
    third = folder(tmp_path, "b.service/000001-start", 1000)
    young = folder(tmp_path, "b.service/000002-start", 1)
    assert vacuum.sweep(tmp_path, {str(used)}, {"a.service"}, 10_000 * KILO, time.time()) == []
    assert vacuum.sweep(tmp_path, {str(used)}, {"a.service"}, 350 * KILO, time.time()) == [oldest, third]
    assert second.exists()
    assert vacuum.sweep(tmp_path, {str(used)}, set(), 0, time.time()) == [second]
    assert used.exists() and young.exists()


def test_the_last_run_of_a_unit_that_is_here_goes_when_nothing_else_is_left(tmp_path: Path) -> None:
    early = folder(tmp_path, "here.service/000001-start", 5000)
    start = folder(tmp_path, "here.service/000002-start", 4000)
    stop = folder(tmp_path, "here.service/000003-stop-post", 3000)
    busy = [folder(tmp_path, f"busy.service/{number:06d}-start", 2000 - number) for number in range(1, 10)]
    here = {"here.service", "busy.service"}
    assert vacuum.sweep(tmp_path, set(), here, 350 * KILO, time.time()) == [early, *busy[:-1]]
    assert vacuum.sweep(tmp_path, set(), here, 0, time.time()) == [start, stop, busy[-1]]


def test_of_a_unit_whose_processes_nobody_knows_nothing_goes(tmp_path: Path) -> None:
    path = folder(tmp_path, "lost.service/000001-start", 100 * DAY_S)
    assert vacuum.sweep(tmp_path, {str(path.parent)}, set(), 0, time.time()) == []


def test_a_unit_that_is_gone_for_long_leaves_nothing(tmp_path: Path) -> None:
    old = folder(tmp_path, "gone.service/000001-start", 31 * DAY_S)
    here = folder(tmp_path, "here.service/000001-start", 31 * DAY_S)
    lately = folder(tmp_path, "lately.service/000001-start", 29 * DAY_S)
    assert vacuum.sweep(tmp_path, set(), {"here.service"}, 10_000 * KILO, time.time()) == [old]
    assert vacuum.sweep(tmp_path, set(), {"here.service"}, 10_000 * KILO, time.time() + 2 * vacuum.SETTLED_S) == []
    assert not old.parent.exists() and here.exists() and lately.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="control groups need root")
async def test_a_running_unit_keeps_its_journal_while_all_else_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vacuum, "LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(vacuum, "SETTLED_S", -1.0)
    monkeypatch.setattr(vacuum, "MOST_BYTES", 0)
    machine = Machine(tmp_path)
    await machine.start()
    try:
        await machine.cluster.place("x.service", "[Service]\nExecStartPre=/bin/echo pre\nExecStart=/bin/sleep 600\n")
        await machine.cluster.until("x.service", lambda s: s is not None and s.main_pid is not None)
        assert machine.supervisor is not None
        root = machine.root / "data/journal"
        supervisor = machine.supervisor
        sweeping = asyncio.create_task(vacuum.run(root, supervisor.written_journals, supervisor.units))
        async with asyncio.timeout(60):
            while [path.name for path in (root / "x.service").iterdir()] != ["000002-start"]:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        assert (root / "x.service/000002-start").is_dir()
        sweeping.cancel()
        await asyncio.wait([sweeping])
    finally:
        await machine.clean()


@pytest.mark.skipif(os.geteuid() != 0, reason="control groups need root")
@pytest.mark.parametrize("readable", [True, False])
async def test_a_sweep_that_begins_before_units_are_taken_over_spares_what_they_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readable: bool
) -> None:
    monkeypatch.setattr(vacuum, "LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(vacuum, "SETTLED_S", -1.0)
    monkeypatch.setattr(vacuum, "MOST_BYTES", 0)
    machine = Machine(tmp_path)
    await machine.start()
    try:
        await machine.cluster.place("x.service", "[Service]\nExecStart=/bin/sh -c 'echo up; exec sleep 600'\n")
        await machine.until_lines("x.service", ["up"])
        await machine.kill()
        machine.cluster.cut_off = True
        if not readable:
            path = machine.root / "data/units/x.service.json"
            path.write_text(path.read_text().replace("ExecStart=", "Type=odd\\nExecStart="))
        live = machine.root / "data/journal/x.service/000001-start"
        last = folder(machine.root / "data/journal", "gone.service/000001-start", -0.5)
        starting = asyncio.create_task(machine.start())
        await asyncio.sleep(0)
        supervisor = machine.supervisor
        assert supervisor is not None and not supervisor.units()
        sweeping = asyncio.create_task(
            vacuum.run(machine.root / "data/journal", supervisor.written_journals, supervisor.units)
        )
        await starting
        async with asyncio.timeout(60):
            while last.exists():
                await asyncio.sleep(0.05)
        assert live.is_dir()
        sweeping.cancel()
        await asyncio.wait([sweeping])
    finally:
        await machine.clean()
