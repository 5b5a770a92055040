"""Debian's etcdctl and our recipes in one lock and in one election, at a store of ours and at etcd."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kvstore.client import Client
from kvstore.recipes import Election, Lock
from tests.conformance.members import etcdctl_path
from tests.unit.kvstore.members import Cluster
from tests.unit.kvstore.recipes.conftest import PATIENCE_S, Opener, keys

ROUNDS = 6
SILENCE_S = 0.3


class Etcdctl:
    """A run of etcdctl whose lines are read one by one."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._next: asyncio.Future[bytes] | None = None

    async def line(self) -> str:
        """The next line that it prints."""
        reading, self._next = self._next or asyncio.ensure_future(self._read()), None
        async with asyncio.timeout(PATIENCE_S):
            return (await reading).decode().rstrip("\n")

    async def silent(self) -> bool:
        """Whether it prints nothing for a while."""
        self._next = asyncio.ensure_future(self._read())
        done, _ = await asyncio.wait([self._next], timeout=SILENCE_S)
        return not done

    async def _read(self) -> bytes:
        assert self.process.stdout is not None
        return await self.process.stdout.readline()

    async def interrupt(self) -> int:
        """End it as Ctrl-C does; its exit code."""
        self.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def etcdctl(cluster: Cluster, *words: str) -> AsyncIterator[Etcdctl]:
    """Run etcdctl against the cluster until the end of the body."""
    if (program := etcdctl_path()) is None:
        pytest.skip("etcdctl is not here: run make setup")
    command = [program, "--endpoints", ",".join(cluster.endpoints), *words]
    environment = {**os.environ, "ETCDCTL_API": "3"}
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
    try:
        yield Etcdctl(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def queued(client: Client, count: int, prefix: bytes) -> None:
    """Wait until so many stand in a queue."""
    async with asyncio.timeout(PATIENCE_S):
        while len(await keys(client, prefix)) != count:
            await asyncio.sleep(0.01)


async def test_a_lock_goes_from_etcdctl_to_us_to_etcdctl(cluster: Cluster, client: Client, opened: Opener) -> None:
    lock = Lock(await opened(), b"mutex")
    async with etcdctl(cluster, "lock", "mutex") as first:
        assert (await first.line()).startswith("mutex/")
        waiting = asyncio.create_task(lock.acquire())
        await queued(client, 2, b"mutex/")
        async with etcdctl(cluster, "lock", "mutex") as last:
            await queued(client, 3, b"mutex/")
            await asyncio.sleep(0.3)
            assert not waiting.done()
            assert await first.interrupt() == 0
            async with asyncio.timeout(PATIENCE_S):
                await waiting
            assert await last.silent()
            await lock.release()
            assert await last.line() == (await keys(client, b"mutex/"))[0].decode()
            assert await last.interrupt() == 0
    assert await keys(client, b"mutex/") == []


async def test_etcdctl_and_we_exclude_each_other(
    cluster: Cluster, client: Client, opened: Opener, tmp_path: Path
) -> None:
    """Steps of a number in a file, read and written apart: none is lost, and the keys of all are alike."""
    number = tmp_path / "number"
    number.write_text("0")
    script = f'n=$(cat {number}); sleep 0.05; echo $((n + 1)) >{number}; echo "$ETCD_LOCK_KEY"'

    async def theirs() -> None:
        for _ in range(ROUNDS):
            async with etcdctl(cluster, "lock", "mutex", "--", "sh", "-c", script) as run:
                assert (await run.line()).startswith("mutex/")
                assert await run.process.wait() == 0

    async def ours() -> None:
        session = await opened()
        for _ in range(ROUNDS):
            async with Lock(session, b"mutex") as lock:
                assert lock.key == b"mutex/%x" % session.lease
                before = int(number.read_text())
                await asyncio.sleep(0.05)
                number.write_text(f"{before + 1}")

    async with asyncio.timeout(3 * PATIENCE_S), asyncio.TaskGroup() as tasks:
        for work in (theirs, ours, theirs, ours):
            tasks.create_task(work())
    assert int(number.read_text()) == 4 * ROUNDS


async def test_etcdctl_and_we_stand_in_one_election(cluster: Cluster, client: Client, opened: Opener) -> None:
    election = Election(await opened(), b"lead")
    await election.campaign(b"ours")
    async with etcdctl(cluster, "elect", "--listen", "lead") as listening:
        assert [await listening.line(), await listening.line()] == [election.key.decode(), "ours"]
        await election.proclaim(b"still ours")
        assert [await listening.line(), await listening.line()] == [election.key.decode(), "still ours"]
        async with etcdctl(cluster, "elect", "lead", "theirs") as standing:
            await queued(client, 2, b"lead/")
            assert await standing.silent()
            await election.resign()
            assert (leader := await _leader(election, b"theirs")).startswith(b"lead/")
            assert [await listening.line(), await listening.line()] == [leader.decode(), "theirs"]
            waiting = asyncio.create_task(election.campaign(b"ours again"))
            await queued(client, 2, b"lead/")
            await asyncio.sleep(0.3)
            assert not waiting.done()
            assert await standing.interrupt() == 0
        async with asyncio.timeout(PATIENCE_S):
            await waiting
        assert [await listening.line(), await listening.line()] == [election.key.decode(), "ours again"]


async def _leader(election: Election, value: bytes) -> bytes:
    """The leader's key, once it is the one with this value."""
    async with asyncio.timeout(PATIENCE_S):
        async for leader in election.observe():
            if leader.value == value:
                return leader.key
    raise AssertionError
