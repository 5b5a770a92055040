"""Defragmentation: the file shrinks while all goes on, and a kill at any time of it loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import pytest

from kvstore.client import Client, prefix_end
from kvstore.errors import StoreError
from kvstore.model import Op
from tests.conformance.members import etcdctl_path
from tests.unit.kvstore.members import Cluster, hash_kv, leader_of

pytestmark = pytest.mark.skipif(etcdctl_path() is None, reason="etcdctl is not here: run make setup")
PREFIX = b"many/"
KEYS = 40_000
PER_TXN = 100
VALUE = b"v" * 500
KILLS = 12
AT_LEAST = 5
"""Writes that end while a defragmentation is under way; where the store is held, one or two that were just begun do."""
TRIES = 4
"""A busy machine may leave the load no time for so many; where the store is held, no try has them."""
PATIENCE_S = 60
STOP_S = 60


async def fill(client: Client, value: bytes = VALUE) -> None:
    """Put all keys."""

    async def part(begin: int) -> None:
        for at in range(begin, KEYS, 16 * PER_TXN):
            await client.txn([], [Op.put(PREFIX + b"%06d" % key, value) for key in range(at, at + PER_TXN)], [])

    await asyncio.gather(*(part(at * PER_TXN) for at in range(16)))


async def make_holes(client: Client) -> int:
    """Leave a state whose file is mostly empty: one key of four is left, with its last value; its revision."""
    await fill(client)
    await fill(client, VALUE[1:])
    last = await client.delete(PREFIX, range_end=PREFIX + b"%06d" % (KEYS * 3 // 4))
    await client.compact(last.header.revision, physical=True)
    return last.header.revision


async def defrag(cluster: Cluster, *words: str) -> tuple[int, str]:
    """Run Debian's etcdctl; its exit code and what it printed."""
    endpoints = ",".join(cluster.endpoints)
    command = [str(etcdctl_path()), "--endpoints", endpoints, "--command-timeout", "60s", "defrag", *words]
    pipe = asyncio.subprocess.PIPE
    done = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env={"ETCDCTL_API": "3"})
    try:
        out, errors = await asyncio.wait_for(done.communicate(), PATIENCE_S)
    finally:
        if done.returncode is None:  # it would wait for a member that is gone
            done.kill()
            await done.wait()
    assert done.returncode is not None
    return done.returncode, (out + errors).decode()


class Load:
    """Writes that go on, and small reads beside them."""

    def __init__(self, client: Client, turn: int = 0) -> None:
        self.client = client
        self.prefix = b"load/%d/" % turn
        self.acknowledged = 0
        self.slowest = 0.0

    async def run(self) -> None:
        while True:
            begun = time.monotonic()
            await self.client.put(self.prefix + b"%06d" % self.acknowledged, b"%d" % self.acknowledged)
            self.acknowledged += 1
            assert (await self.client.get(self.prefix + b"%06d" % (self.acknowledged - 1))).kvs
            self.slowest = max(self.slowest, time.monotonic() - begun)

    async def check(self) -> None:
        """All that was acknowledged is there."""
        found = await self.client.get(self.prefix, range_end=prefix_end(self.prefix))
        assert [kv.value for kv in found.kvs][: self.acknowledged] == [b"%d" % at for at in range(self.acknowledged)]


def folders(folder: Path) -> list[str]:
    """In the data directory of the first member."""
    return sorted(one.name for one in (folder / "m0").iterdir() if one.is_dir())


def size(folder: Path) -> int:
    """Bytes that the first member's state takes on disk."""
    return (folder / "m0/state/data.mdb").stat().st_blocks * 512


async def written_during(load: Load, cluster: Cluster) -> int:
    """Defragment under a load, of which a watch shows all; how many writes ended meanwhile."""
    async with load.client.watch(load.prefix, range_end=prefix_end(load.prefix)) as watch:
        writing = asyncio.create_task(load.run())
        await asyncio.sleep(0.2)
        begun = load.acknowledged
        done = await defrag(cluster)
        assert done == (0, f"Finished defragmenting etcd member[{cluster.endpoints[0]}]\n")
        during = load.acknowledged - begun
        await asyncio.sleep(0.2)
        writing.cancel()
        seen = 0
        async with asyncio.timeout(PATIENCE_S):
            async for batch in watch:
                for event in batch.events:
                    assert event.kv.value == b"%d" % seen
                    seen += 1
                if seen >= load.acknowledged:
                    break
    return during


async def test_the_file_shrinks_while_all_goes_on(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 1)
    try:
        async with Client(cluster.endpoints, timeout=60) as client:
            during: list[int] = []
            while not during or during[-1] < AT_LEAST:
                assert len(during) < TRIES, f"writes that went on: {during}"
                revision = await make_holes(client)
                hash = (await hash_kv(client, cluster.endpoints[0], revision))["hash"]
                before = size(tmp_path)
                load = Load(client, len(during))
                during.append(await written_during(load, cluster))
            after = size(tmp_path)
            assert after < before / 3, (before, after)
            status = await client.status(cluster.endpoints[0])
            assert status.db_size < before / 3
            await load.check()
            assert (await hash_kv(client, cluster.endpoints[0], revision))["hash"] == hash
            cluster.kill(0)
            cluster.restart(0)
            await load.check()
            assert (await client.get(PREFIX, range_end=prefix_end(PREFIX), count_only=True)).count == KEYS // 4
            assert (await hash_kv(client, cluster.endpoints[0], revision))["hash"] == hash
            assert folders(tmp_path) == ["state", "wal"]
    finally:
        cluster.close()


class Counter:
    """Numbers put under one key, the last acknowledged noted."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.acknowledged = 0

    async def run(self) -> None:
        """Until the store goes."""
        with contextlib.suppress(StoreError):
            while True:
                await self.client.put(b"number", b"%d" % (self.acknowledged + 1))
                self.acknowledged += 1

    async def check(self) -> None:
        """It is there, or the one that was on its way."""
        found = (await self.client.get(b"number")).kvs
        number = int(found[0].value) if found else 0
        assert self.acknowledged <= number <= self.acknowledged + 1
        self.acknowledged = number


@pytest.mark.parametrize("gently", [False, True], ids=["kill", "stop"])
async def test_an_end_at_any_time_loses_nothing(tmp_path: Path, gently: bool) -> None:
    cluster = Cluster(tmp_path, 1)
    try:
        async with Client(cluster.endpoints, timeout=30) as client:
            revision = await make_holes(client)
            expected = (await hash_kv(client, cluster.endpoints[0], revision))["hash"]
            begun = time.monotonic()
            assert (await defrag(cluster))[0] == 0
            took = time.monotonic() - begun
            counter = Counter(client)
            for turn in range(KILLS):
                counting = asyncio.create_task(counter.run())
                work = asyncio.create_task(defrag(cluster))
                await asyncio.sleep(took * (turn + 1) / KILLS)
                if gently:
                    cluster.processes[0].terminate()
                    assert await asyncio.to_thread(cluster.processes[0].wait, STOP_S) == 0
                cluster.kill(0)
                counting.cancel()
                work.cancel()
                await asyncio.gather(counting, work, return_exceptions=True)
                cluster.restart(0)
                await counter.check()
                assert (await hash_kv(client, cluster.endpoints[0], revision))["hash"] == expected, turn
                assert folders(tmp_path) == ["state", "wal"], turn
            assert counter.acknowledged > KILLS
    finally:
        cluster.close()


async def test_members_are_defragmented_one_after_the_other(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 3)
    try:
        async with Client(cluster.endpoints, timeout=60) as client:
            await leader_of(client, cluster)
            revision = await make_holes(client)
            load = Load(client)
            writing = asyncio.create_task(load.run())
            # What a compaction takes away meanwhile is not in the copies.
            work = defrag(cluster, "--cluster"), client.compact(revision + 1, physical=True)
            (code, said), _ = await asyncio.gather(*work)
            writing.cancel()
            assert code == 0 and said.count("Finished defragmenting") == 3, said
            await load.check()
            sums = {(await hash_kv(client, one, revision + 2))["hash"] for one in cluster.endpoints}
            assert len(sums) == 1
    finally:
        cluster.close()
