"""kill -9 at any moment: no run is doubled, none is lost, and the unit goes on in the end."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

import pytest

from agent.cgroups import Cgroup
from tests.unit.agent.machine.fix_machine import Machine

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="control groups need root")
ROUNDS = 10
SEED = int(os.environ.get("FLEET_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)

UNIT = """[Unit]
StartLimitBurst=0
[Service]
ExecStartPre=/bin/sh -c 'mkdir ROOT/lock || echo twice >> ROOT/bad'
ExecStart=/bin/sh -c 'echo run >> ROOT/runs; sleep 0.03; exit 1'
ExecStopPost=/bin/sh -c 'rmdir ROOT/lock || echo unmatched >> ROOT/bad'
Restart=always
RestartSec=0.01
"""


async def test_fleetd_killed_at_any_moment(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    unit = tmp_path / "loop.service"
    unit.write_text(UNIT.replace("ROOT", str(tmp_path)))
    dice = random.Random(SEED)
    child: asyncio.subprocess.Process | None = None
    try:
        for _ in range(ROUNDS):
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.unit.agent.machine.child", str(tmp_path), machine.cgroups, str(unit)
            )
            await asyncio.sleep(0.35 + dice.random() * 0.3)
            child.kill()
            await child.wait()
            bad = tmp_path / "bad"
            assert not bad.exists(), f"seed {SEED}: {bad.read_text()}"
        runs = tmp_path / "runs"
        runs.touch()  # on a busy machine no fleetd may have come so far
        before = len(runs.read_text().splitlines())
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.unit.agent.machine.child", str(tmp_path), machine.cgroups, str(unit)
        )
        async with asyncio.timeout(60):
            while len(runs.read_text().splitlines()) < before + 5:
                await asyncio.sleep(0.05)
        assert not (tmp_path / "bad").exists(), f"seed {SEED}"
        monitors = Cgroup("loop.service/monitor", root=machine.cgroups).procs()
        assert len(monitors) <= 3, f"seed {SEED}: monitors {sorted(monitors)} were left behind"
    finally:
        if child is not None and child.returncode is None:
            child.kill()
            await child.wait()
        await machine.clean()
