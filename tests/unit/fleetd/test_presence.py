"""The machine's lease as fleetd hears of it, from the real fleet-presence on a real store."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

from fleetd.presence import MachineLease
from kvstore.client import Client
from kvstore.errors import LeaseNotFound
from tests.unit.kvstore.members import Cluster

PROGRAM = shutil.which("fleet-presence", path=str(Path(sys.executable).parent)) or ""
WAIT_S = 60


class Machine:
    """One fleetd's presence and what it was told; it announces itself as `node` does."""

    def __init__(self, folder: Path, endpoints: list[str], client: Client) -> None:
        self.presence = MachineLease(folder, folder, PROGRAM, endpoints)
        self.client = client
        self.tried: list[tuple[int, bool | None]] = []
        self.accepted: asyncio.Queue[tuple[int, bool | None]] = asyncio.Queue()
        self.task = asyncio.create_task(self.presence.run(self.has_lease))

    async def has_lease(self, lease: int, returning: bool | None) -> None:
        self.tried.append((lease, returning))
        try:
            await self.client.put(b"presence", b"", lease=lease)
        except LeaseNotFound:
            await asyncio.Event().wait()
        await self.accepted.put((lease, returning))

    async def next(self) -> tuple[int, bool | None]:
        async with asyncio.timeout(WAIT_S):
            return await self.accepted.get()

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})

    @property
    def pid(self) -> int:
        pid = self.presence._program.pid
        assert pid is not None
        return pid


async def test_a_fleetd_that_finds_its_lease_gone_returns_under_a_new_one(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    client = Client(cluster.endpoints)
    run = tmp_path / "run"
    run.mkdir()
    try:
        first = Machine(run, cluster.endpoints, client)
        lease, returning = await first.next()
        assert returning is False
        await first.stop()
        os.kill(first.pid, signal.SIGKILL)
        await client.lease_revoke(lease)

        second = Machine(run, cluster.endpoints, client)
        fresh, returning = await second.next()
        assert fresh != lease and returning is True
        assert (await client.get(b"presence")).kvs[0].lease == fresh

        await client.lease_revoke(fresh)
        later, returning = await second.next()
        assert later != fresh and returning is None
        await second.stop()
    finally:
        with contextlib.suppress(OSError):
            os.kill(json.loads((run / "fleet-presence.pid").read_text())["pid"], signal.SIGKILL)
        await client.close()
        cluster.close()
