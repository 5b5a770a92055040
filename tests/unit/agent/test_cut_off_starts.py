"""A container's start that a killed fleetd left half done, at each point where that matters. Real runc and monitors."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent import identity
from agent.containers.container import Containers
from agent.containers.launch import Launcher, Places
from agent.containers.records import Record, Records
from agent.docker_steps import UnitContainer
from agent.monitor.link import Link
from agent.network.bridge import Bridge
from agent.units.docker_line import ContainerOptions
from tests.conformance.containers import busybox

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(
        os.geteuid() != 0 or not (shutil.which("runc") and Path("/bin/busybox").exists()),
        reason="needs root, runc and busybox",
    ),
]
END_TIMEOUT_S = 20.0


async def cut_off(place: Path, told: Callable[[Record, Link], Awaitable[None]]) -> str:
    """Go as far as the runtime's `create`, then do what `told` says and no more; answer the container."""
    containers = Containers(place / "data", place / "run", identity.boot())
    containers.images.import_tar(io.BytesIO(busybox()), "busybox")
    options = replace(ContainerOptions("busybox"), network="none", command=("sh", "-c", "exit 7"))
    container = await containers.create(UnitContainer("", options, Path(), ""))
    record = containers.get(container)
    records, run = place / "data" / "containers", place / "run"
    launcher = Launcher(Places(records, place / "data" / "volumes", run / "c", run / "runtime"), Bridge())
    record, link = await launcher.launch(record, containers.images.resolve("busybox"))
    await told(record, link)
    await link.close()
    return container


async def test_what_was_made_and_not_noted_is_cleared_away_and_can_be_started(tmp_path: Path) -> None:
    async def nothing(record: Record, link: Link) -> None:
        return

    container = await cut_off(tmp_path, nothing)
    later = Containers(tmp_path / "data", tmp_path / "run", identity.boot())
    await later.adopt()
    assert later.get(container).state == "created"
    assert not (tmp_path / "run" / "runtime" / container).exists()
    await later.start(container)
    async with asyncio.timeout(END_TIMEOUT_S):
        assert await later.wait(container) == 7
    await later.remove(container, force=True, volumes=True)


@pytest.mark.parametrize("ordered", [False, True])
async def test_what_was_noted_as_running_runs(tmp_path: Path, ordered: bool) -> None:
    async def note(record: Record, link: Link) -> None:
        Records(tmp_path / "data" / "containers").save(replace(record, state="running", started=1.0))
        if ordered:
            await link.start()

    container = await cut_off(tmp_path, note)
    later = Containers(tmp_path / "data", tmp_path / "run", identity.boot())
    await later.adopt()
    async with asyncio.timeout(END_TIMEOUT_S):
        assert await later.wait(container) == 7
    await later.remove(container, force=True, volumes=True)
