"""A real store on loopback, and machines that report what they are told to run as a script says."""

from __future__ import annotations

import asyncio
import http.client
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from agent.interfaces import Placement, UnitState
from benchmarks.ports import free_port
from fleetd.registry import Registry
from fleetd.registry.records import Machine
from fleetd.registry.reports import ClusterLink
from kvstore.client import Client

STORE_START_S = 60.0
TTL_S = 3


@contextmanager
def store(directory: Path) -> Iterator[str]:
    """Run one member, ours or the etcd that $ETCD names; its client URL."""
    with store_process(directory) as (client, _):
        yield client


@contextmanager
def store_process(directory: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The same with its process."""
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    etcd = os.environ.get("ETCD")
    command = [etcd] if etcd else [sys.executable, "-m", "kvstore"]
    command += ["--name", "m", "--data-dir", str(directory / "store")]
    command += ["--listen-client-urls", client, "--advertise-client-urls", client]
    command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"m={peer}"]
    with (directory / "store.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + STORE_START_S
        while True:
            try:
                with urllib.request.urlopen(f"{client}/health", timeout=1) as answer:
                    if b'"true"' in answer.read():
                        break
            except (OSError, http.client.HTTPException):
                pass
            assert process.poll() is None, (directory / "store.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield client, process
    finally:
        process.kill()
        process.wait()


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> float:
    """Wait for something to become true; how long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it did not happen in time"
        await asyncio.sleep(0.01)
    return time.monotonic() - began


def runs(placement: Placement) -> UnitState:
    """What a machine reports: units with `bad` in their name fail, others do as they are told."""
    if placement.desired == "loaded":
        return UnitState(placement.unit, placement.epoch, "loaded", "inactive", "dead")
    if "once" in placement.unit:
        return UnitState(placement.unit, placement.epoch, "loaded", "inactive", "dead", exit_status=0)
    if "bad" in placement.unit:
        why = "The main process exited with status 7."
        return UnitState(placement.unit, placement.epoch, "loaded", "failed", "failed", "exit-code", 7, why=why)
    return UnitState(placement.unit, placement.epoch, "loaded", "active", "running", main_pid=4, since=time.time())


class Member:
    """A machine of the cluster without an agent: it believes its placements and reports at once."""

    def __init__(self, client: Client, name: str, metadata: dict[str, str] | None = None) -> None:
        self.client = client
        self.registry = Registry(client, name)
        self.link = ClusterLink(client, name)
        self.metadata = metadata or {}
        self.placed: dict[str, Placement] = {}
        self.lease = 0
        self._renewal: asyncio.Task[None] | None = None

    async def appear(self) -> None:
        """Take a lease, and say that the machine lives."""
        self.lease = (await self.client.lease_grant(TTL_S)).id
        await self.registry.register_machine(Machine(self.registry.machine_id, "10.0.0.1", self.metadata))
        await self.registry.announce("boot", "10.0.0.1", self.lease)
        self.link.set_lease(self.lease)
        self._renewal = asyncio.create_task(self._renew())

    def fall_silent(self) -> None:
        """Renew no more; units run on."""
        if self._renewal is not None:
            self._renewal.cancel()

    async def _renew(self) -> None:
        while True:
            await self.client.lease_keepalive(self.lease)
            await asyncio.sleep(0.7)

    async def run(self) -> None:
        async for placed in self.link.placements():
            before, self.placed = self.placed, {p.unit: p for p in placed.values() if isinstance(p, Placement)}
            new = [p for p in self.placed.values() if p.unit not in before or before[p.unit].epoch != p.epoch]
            await self.link.report_units([runs(p) for p in new], [unit for unit in before if unit not in placed])


@asynccontextmanager
async def members(client: Client, *names: str) -> AsyncIterator[list[Member]]:
    """Machines that live until the block ends; the first one has metadata disk=ssd."""
    found = [Member(client, name, {} if index else {"disk": "ssd"}) for index, name in enumerate(names)]
    tasks = [asyncio.create_task(work) for member in found for work in (member.run(), member.link.run())]
    try:
        for member in found:
            await member.appear()
        yield found
    finally:
        for member in found:
            member.fall_silent()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
