"""Etcd v3 members on loopback for client tests: ours, or Debian's etcd."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.ports import free_port
from kvstore.client import Client
from kvstore.errors import StoreError
from tests.conformance.members import etcd_path


class Cluster:
    """Some members as processes; `endpoints[i]` belongs to `processes[i]`. They may not serve yet: a client waits."""

    def __init__(self, folder: Path, count: int = 1, *, ours: bool = True, flags: Sequence[str] = ()) -> None:
        """Of etcd unless `ours`; the test is skipped where there is none."""
        command = [sys.executable, "-m", "kvstore"]
        if not ours:
            if (etcd := etcd_path()) is None:
                pytest.skip("etcd is not here: run make setup")
            command = [etcd]
        ports = [(free_port(), free_port()) for _ in range(count)]
        initial = ",".join(f"m{at}=http://127.0.0.1:{peer}" for at, (_, peer) in enumerate(ports))
        self.endpoints = [f"http://127.0.0.1:{client}" for client, _ in ports]
        self._commands: list[tuple[list[str], Path]] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        for at, (client, peer) in enumerate(ports):
            urls = [f"--{kind}-client-urls=http://127.0.0.1:{client}" for kind in ("listen", "advertise")]
            urls += [
                f"--{kind}=http://127.0.0.1:{peer}" for kind in ("listen-peer-urls", "initial-advertise-peer-urls")
            ]
            own = [f"--name=m{at}", f"--data-dir={folder}/m{at}", f"--initial-cluster={initial}"]
            own += ["--heartbeat-interval=50", "--election-timeout=500", *urls]
            self._commands.append(([*command, *own, *flags], folder / f"m{at}.log"))
            self.processes.append(self._run(at))

    def _run(self, at: int, *flags: str) -> subprocess.Popen[bytes]:
        command, path = self._commands[at]
        with path.open("ab") as log:
            return subprocess.Popen([*command, *flags], stdout=log, stderr=log)

    def kill(self, at: int) -> None:
        """End one member at once."""
        self.processes[at].kill()
        self.processes[at].wait()

    def restart(self, at: int, *flags: str) -> None:
        """Start a killed member again, on its data if it still has it."""
        self.processes[at] = self._run(at, *flags)

    def close(self) -> None:
        """End what was started."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()


async def hash_kv(client: Client, endpoint: str, revision: int = 0) -> dict[str, int]:
    """What a member makes of its keys up to a revision: `hash`, and `compact_revision`."""
    return await client.call("Maintenance/HashKV", {"revision": revision}, endpoint=endpoint)


async def leader_of(client: Client, cluster: Cluster) -> int:
    """Which endpoint belongs to the leader, once every member runs and knows it."""
    async with asyncio.timeout(60):
        while True:
            try:
                status = [await client.status(endpoint) for endpoint in cluster.endpoints]
                return next(at for at, one in enumerate(status) if one.leader == one.member_id and one.leader)
            except (StoreError, StopIteration):
                await asyncio.sleep(0.05)
