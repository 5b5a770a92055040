"""A unit's container that its monitor ends while no fleetd lives, as the next one finds it. Real runc and monitors."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import struct
import time
from dataclasses import replace
from pathlib import Path

import pytest

from agent import identity
from agent.containers.container import Containers
from agent.docker_steps import UnitContainer
from agent.isolation import ISOLATION_LABEL, Isolation
from agent.units.docker_options import ContainerOptions
from tests.conformance.containers import busybox

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(
        os.geteuid() != 0 or not (shutil.which("runc") and Path("/bin/busybox").exists()),
        reason="needs root, runc and busybox",
    ),
]
END_TIMEOUT_S = 60.0
UNIT = "once.service"


async def test_an_end_for_want_of_an_answer_is_told_from_others(tmp_path: Path) -> None:
    page, began = tmp_path / "page", time.time()
    now = int(time.clock_gettime(time.CLOCK_BOOTTIME) * 1000)
    page.write_bytes(struct.pack("<QqQ", now, 7, now))
    told = Isolation(page, 2000, 9, 100)
    before = Containers(tmp_path / "data", tmp_path / "run", identity.boot())
    before.images.import_tar(io.BytesIO(busybox()), "busybox")
    options = replace(ContainerOptions("busybox"), network="none")
    cut = replace(options, command=("sleep", "600"), labels=((ISOLATION_LABEL, told.text()),))
    made: list[str] = []
    for one in (cut, replace(options, command=("sh", "-c", "exit 7"))):
        made.append(await before.create(UnitContainer(UNIT, one, tmp_path / f"log{len(made)}", "")))
        await before.start(made[-1])
    letting_go = asyncio.create_task(before.run())
    await asyncio.sleep(0)
    letting_go.cancel()
    await asyncio.wait([letting_go])
    later = Containers(tmp_path / "data", tmp_path / "run", identity.boot())
    await later.adopt()
    async with asyncio.timeout(END_TIMEOUT_S):
        for container in made:
            await later.wait(container)
    assert later.isolated(UNIT, began) == {made[0]}
    assert later.isolated(UNIT, time.time()) == later.isolated("other.service", began) == set()
    for container in made:
        await later.remove(container, force=True, volumes=True)
