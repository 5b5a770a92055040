"""StopWhenIsolated= with real monitors: the test writes the page that fleet-presence writes, and plays the cluster."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.isolation import Isolation
from tests.unit.agent.machine.fix_machine import PATIENCE_S, Machine
from tests.unit.agent.machine.test_supervisor import alive

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="control groups need root")

NAME = "once.service"
TEXT = """[Service]
ExecStart=/bin/sh -c 'trap "" TERM; echo up; while :; do sleep 0.1; done'
ExecStop=/bin/echo stopping
TimeoutStopSec=1
Restart=always
RestartSec=0
[X-Fleet]
StopWhenIsolated=1.5
"""


class Answers:
    """Writes the page while `on`."""

    def __init__(self, page: Path) -> None:
        self.page = page
        self.on = True

    async def run(self) -> None:
        while True:
            if self.on:
                now = int(time.clock_gettime(time.CLOCK_BOOTTIME) * 1000)
                with self.page.open("r+b" if self.page.exists() else "wb", buffering=0) as page:
                    page.write(struct.pack("<QqQ", now, 7, now))
            await asyncio.sleep(0.1)


@pytest.fixture
async def answers(machine: Machine) -> AsyncIterator[Answers]:
    made = Answers(machine.page)
    task = asyncio.create_task(made.run())
    yield made
    task.cancel()


async def ended(pid: int) -> float:
    """Wait for a process's end; the seconds that it took."""
    begin = time.monotonic()
    while alive(pid):
        assert time.monotonic() - begin < PATIENCE_S
        await asyncio.sleep(0.02)
    return time.monotonic() - begin


async def running(machine: Machine) -> int:
    state = await machine.cluster.until(
        NAME, lambda s: s is not None and s.sub == "running" and alive(s.main_pid) and s.main_pid is not None
    )
    assert state is not None and state.main_pid is not None
    return state.main_pid


async def test_a_unit_waits_for_answers_stops_without_and_comes_again(machine: Machine, answers: Answers) -> None:
    answers.on = False
    machine.page.unlink(missing_ok=True)
    await machine.cluster.place(NAME, TEXT)
    await machine.cluster.until(NAME, lambda s: s is not None and s.active == "activating")
    assert machine.lines(NAME) == []
    answers.on = True
    first = await running(machine)
    answers.on = False
    print(f"stopped {await ended(first):.1f} s after the last answers")
    await machine.cluster.until(NAME, lambda s: s is not None and s.active in ("inactive", "failed"))
    assert "StopWhenIsolated" in machine.cluster.reports[NAME].why
    assert machine.lines(NAME) == ["up", "stopping"]
    machine.cluster.cut_off = True
    answers.on = True
    await machine.cluster.until(NAME, lambda s: s is not None and s.active == "activating")
    assert machine.lines(NAME) == ["up", "stopping"], "it started before the cluster had confirmed it"
    machine.cluster.cut_off = False
    assert await running(machine) != first


async def test_a_monitor_obeys_without_fleetd_and_a_later_fleetd_asks_first(machine: Machine, answers: Answers) -> None:
    await machine.cluster.place(NAME, TEXT)
    first = await running(machine)
    await machine.kill()
    answers.on = False
    took = await ended(first)
    print(f"stopped {took:.1f} s after fleetd and the last answers")
    assert 2.0 < took < 30.0
    machine.cluster.cut_off = answers.on = True
    await machine.start()
    await asyncio.sleep(1.0)
    assert machine.lines(NAME).count("up") == 1, "it started again though the cluster had not confirmed it"
    machine.cluster.cut_off = False
    assert await running(machine) != first


async def test_a_unit_that_waits_for_its_permit_can_be_taken_away(machine: Machine) -> None:
    await machine.cluster.place(NAME, TEXT)
    await machine.cluster.until(NAME, lambda s: s is not None and s.active == "activating")
    await machine.cluster.take_away(NAME)
    await machine.cluster.until(NAME, lambda s: s is None)
    assert "up" not in machine.lines(NAME)


DETACHED = """[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=docker run -d --rm busybox sleep 600
ExecStop=docker stop c1
[X-Fleet]
StopWhenIsolated=1.5
"""


async def test_a_detached_container_is_stopped_with_its_unit_and_comes_again(
    machine: Machine, answers: Answers
) -> None:
    machine.containers.images.add("busybox")
    await machine.cluster.place(NAME, DETACHED)
    await machine.cluster.until_sub(NAME, "exited")
    told = Isolation.read(machine.containers.made["c1"].options.labels)
    assert told is not None and (told.page, told.after_ms) == (machine.page, 1500), "its monitor would not obey"
    answers.on = False
    await machine.cluster.until(NAME, lambda s: s is not None and s.active in ("inactive", "failed"))
    assert "stop c1 None" in machine.containers.asked
    assert "StopWhenIsolated" in machine.cluster.reports[NAME].why
    answers.on = True
    await machine.cluster.until_sub(NAME, "exited")
    assert "start c2" in machine.containers.asked


async def test_a_detached_container_that_its_monitor_ended_without_fleetd_comes_again_once(
    machine: Machine, answers: Answers
) -> None:
    machine.containers.images.add("busybox")
    await machine.cluster.place(NAME, DETACHED)
    await machine.cluster.until_sub(NAME, "exited")
    await machine.kill()
    machine.containers.isolated_at["c1"] = time.time()
    machine.containers.end("c1", 143)
    machine.cluster.history.clear()
    await machine.start()
    await machine.cluster.until(NAME, lambda _: "start c2" in machine.containers.asked)
    await machine.cluster.until_sub(NAME, "exited")
    assert any(state.active == "inactive" and "StopWhenIsolated" in state.why for state in machine.cluster.history)
    await machine.kill()
    await machine.start()
    await asyncio.sleep(1.0)
    assert "start c3" not in machine.containers.asked, "an end before the unit's last start counted again"


async def test_a_unit_that_fleetd_stopped_comes_again_under_the_next_one(machine: Machine, answers: Answers) -> None:
    machine.containers.images.add("busybox")
    await machine.cluster.place(NAME, DETACHED)
    await machine.cluster.until_sub(NAME, "exited")
    answers.on = False
    await machine.cluster.until_sub(NAME, "dead")
    await machine.kill()
    await machine.start()
    answers.on = True
    await machine.cluster.until_sub(NAME, "exited")
    assert "start c2" in machine.containers.asked
