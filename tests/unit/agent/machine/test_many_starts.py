"""Many units started in one go: a few at a time, and nothing of it on the thread of the event loop."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from agent.monitor import link
from agent.turns import STARTS_AT_ONCE
from tests.unit.agent.machine.fix_machine import PATIENCE_S, Machine

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="control groups need root")
UNITS = 40
CALLS = ("os.mkdir", "subprocess.Popen", "os.scandir", "os.rmdir")
"""Audit events of what takes long when it is done for hundreds of units."""
SHORT = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n"


def state_on_disk(machine: Machine, unit: str) -> dict[str, Any]:
    """What is saved of a unit's life; empty while nothing is."""
    try:
        found: dict[str, Any] = json.loads((machine.root / "data/units" / f"{unit}.json").read_bytes())["state"]
    except FileNotFoundError:
        return {}
    return found


def monitor_between(root: Path, before: str, after: str) -> str:
    """A program that is the monitor's, with something done before and after it has set itself up."""
    program = root / "monitor"
    program.write_text(f'#!/bin/sh\n{before}\n{link._program()}\ncode=$?\n{after}\nexit "$code"\n')
    program.chmod(0o755)
    return str(program)


async def test_a_few_are_started_at_a_time(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = machine.root / "seen"
    between = monitor_between(machine.root, f"echo begin >>{seen}", f"echo end >>{seen}")
    monkeypatch.setenv("FLEET_MONITOR", between)
    names = [f"many{at}.service" for at in range(UNITS)]
    for name in names:
        await machine.cluster.place(name, SHORT)
    for name in names:
        await machine.cluster.until_sub(name, "exited")
    under_way = most = 0
    for word in seen.read_text().split():
        under_way += 1 if word == "begin" else -1
        most = max(most, under_way)
    assert 1 < most <= STARTS_AT_ONCE


async def test_the_timeout_of_who_waits_for_a_turn_stands_still_and_a_stop_takes_it_away(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, ran = machine.root / "go", machine.root / "ran"
    held = monitor_between(machine.root, f"while [ ! -e {go} ]; do sleep 0.02; done", "")
    monkeypatch.setenv("FLEET_MONITOR", held)
    for at in range(STARTS_AT_ONCE):
        await machine.cluster.place(f"slow{at}.service", SHORT)
    async with asyncio.timeout(PATIENCE_S):
        while machine.supervisor is None or not machine.supervisor.site.turns.taken:
            await asyncio.sleep(0.02)
    waiting = SHORT.replace("/bin/true", f"/bin/touch {ran}-%p\nTimeoutStartSec=60")
    for name in ("patient", "stopped"):
        await machine.cluster.place(f"{name}.service", waiting)
        async with asyncio.timeout(PATIENCE_S):
            while state_on_disk(machine, f"{name}.service").get("paused") is None:
                await asyncio.sleep(0.02)
        assert state_on_disk(machine, f"{name}.service")["deadline"] is None
    await machine.cluster.take_away("stopped.service")
    await machine.cluster.until("stopped.service", lambda state: state is None)
    go.touch()
    await machine.cluster.until_sub("patient.service", "exited")
    assert Path(f"{ran}-patient").exists() and not Path(f"{ran}-stopped").exists()


async def test_one_that_hangs_gives_its_turn_on(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    go, first = machine.root / "go", machine.root / "first"
    before = f"if mkdir {first}; then while [ ! -e {go} ]; do sleep 0.02; done; fi"
    monkeypatch.setenv("FLEET_MONITOR", monitor_between(machine.root, before, ""))
    monkeypatch.setattr("agent.turns.TURN_S", 0.2)
    monkeypatch.setattr("agent.turns.STARTS_AT_ONCE", 1)
    assert machine.supervisor is not None
    await machine.kill()
    await machine.start()
    await machine.cluster.place("hangs.service", SHORT)
    async with asyncio.timeout(PATIENCE_S):
        while not first.exists():
            await asyncio.sleep(0.02)
    await machine.cluster.place("next.service", SHORT)
    await machine.cluster.until_sub("next.service", "exited")
    go.touch()
    await machine.cluster.until_sub("hangs.service", "exited")


async def test_the_event_loop_makes_no_groups_nor_looks_into_them_and_forks_nothing(machine: Machine) -> None:
    loop = threading.get_ident()
    done: list[tuple[str, str]] = []
    listening = True

    def heard(event: str, arguments: tuple[Any, ...]) -> None:  # which stays for as long as the interpreter does
        if listening and event in CALLS:
            done.append((event, "loop" if threading.get_ident() == loop else "aside"))

    sys.addaudithook(heard)
    try:
        await machine.cluster.place("once.service", "[Service]\nExecStart=/bin/sleep 60\n")
        await machine.cluster.until("once.service", lambda state: state is not None and state.main_pid is not None)
        await machine.cluster.take_away("once.service")
        await machine.cluster.until("once.service", lambda state: state is None)
    finally:
        listening = False
    assert {(call, "aside") for call in CALLS} == set(done)


async def test_containers_of_units_take_turns_too(machine: Machine) -> None:
    machine.containers.images.add("app")
    machine.containers.launch.clear()
    names = [f"app{at}.service" for at in range(STARTS_AT_ONCE + 1)]
    for name in names[:-1]:
        await machine.cluster.place(name, "[Service]\nExecStart=/usr/bin/docker run app\n")
    async with asyncio.timeout(PATIENCE_S):
        while len(begun := [asked for asked in machine.containers.asked if asked.startswith("start")]) < STARTS_AT_ONCE:
            await asyncio.sleep(0.02)
    await machine.cluster.place(
        names[-1], "[Service]\nType=oneshot\nTimeoutStartSec=60\nExecStart=/usr/bin/docker run app\n"
    )
    async with asyncio.timeout(PATIENCE_S):
        while f"create c{len(names)}" not in machine.containers.asked:
            await asyncio.sleep(0.02)
        while state_on_disk(machine, names[-1]).get("paused") is None:
            await asyncio.sleep(0.02)
    assert [asked for asked in machine.containers.asked if asked.startswith("start")] == begun
    machine.containers.launch.set()
    async with asyncio.timeout(PATIENCE_S):
        while f"start c{len(names)}" not in machine.containers.asked:
            await asyncio.sleep(0.02)
