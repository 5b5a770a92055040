"""Writes without room for them, by quota and on a really full disk: what is refused, and that it ends by itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kvstore.client import Client, prefix_end
from kvstore.errors import NoSpace, StoreError
from tests.conformance.members import etcdctl_path
from tests.unit.kvstore.members import Cluster, leader_of

PREFIX = b"big/"
VALUE = b"v" * (64 << 10)
DISK = "96m"
PAGE = 4096
PATIENCE_S = 60


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of its own, of `DISK` bytes."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path) -> Path:
    """Take all that is left of a disk; the file that has it."""
    hog = disk / "hog"
    with hog.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 20, 1 << 10, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)
    return hog


async def put_until_refused(client: Client) -> list[bytes]:
    """Put keys until the store has no room; those that it acknowledged."""
    acknowledged: list[bytes] = []
    async with asyncio.timeout(PATIENCE_S):
        for at in range(1 << 20):
            key = PREFIX + f"{at:06}".encode()
            try:
                await client.put(key, VALUE)
            except NoSpace:
                return acknowledged
            acknowledged.append(key)
    raise AssertionError("nothing was refused")


async def refuses(client: Client) -> None:
    """A small write is refused too."""
    with pytest.raises(NoSpace):
        await client.put(b"small", b"1")


async def put_when_taken(client: Client) -> None:
    """Put a key again and again until there is room."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await client.put(b"again", b"1")
                return
            except NoSpace:
                await asyncio.sleep(0.1)


def etcdctl(cluster: Cluster, *words: str) -> str:
    """Run Debian's etcdctl on the first member; what it prints."""
    if (program := etcdctl_path()) is None:
        pytest.skip("etcdctl is not here: run make setup")
    command = [program, "--endpoints", cluster.endpoints[0], *words]
    done = subprocess.run(command, capture_output=True, text=True, env={"ETCDCTL_API": "3"}, check=True, timeout=60)
    return done.stdout


@dataclass
class Full:
    """A member whose disk was filled until it refused a write."""

    cluster: Cluster
    client: Client
    disk: Path
    hog: Path
    """What has taken all the room that the member had not."""
    kept: list[bytes]
    """Keys that were acknowledged before."""

    def start_again(self) -> None:
        """Kill the member, and start it as it is."""
        self.cluster.kill(0)
        self.cluster.restart(0)

    async def all_there(self) -> None:
        """Nothing that was acknowledged is lost."""
        found = await self.client.get(PREFIX, range_end=prefix_end(PREFIX), keys_only=True)
        assert set(self.kept) <= {kv.key for kv in found.kvs}
        assert (await self.client.get(b"first")).kvs[0].value == b"1"


@pytest.fixture
async def full(tmp_path: Path) -> AsyncIterator[Full]:
    with small_disk(tmp_path / "m0") as disk:
        cluster = Cluster(tmp_path, 1, ours=True)
        try:
            async with Client(cluster.endpoints, timeout=20) as client:
                await client.put(b"first", b"1")
                hog = fill(disk)
                yield Full(cluster, client, disk, hog, await put_until_refused(client))
        finally:
            cluster.close()


async def test_a_quota_is_about_what_is_used_and_holds_again_after_a_compaction(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 1, ours=True, flags=[f"--quota-backend-bytes={8 << 20}"])
    try:
        async with Client(cluster.endpoints, timeout=20) as client:
            kept = await put_until_refused(client)
            status = await client.status(cluster.endpoints[0])
            assert status.db_size_in_use > 8 << 20 and any("NOSPACE" in error for error in status.errors)
            await refuses(client)
            with pytest.raises(NoSpace):
                await client.lease_grant(60)
            assert len((await client.get(PREFIX, range_end=prefix_end(PREFIX), keys_only=True)).kvs) >= len(kept)
            deleted = await client.delete(PREFIX, range_end=prefix_end(PREFIX))
            await client.compact(deleted.header.revision)
            await put_when_taken(client)
            after = await client.status(cluster.endpoints[0])
            assert not after.errors and after.db_size >= status.db_size, "the file itself does not shrink"
            assert len(await put_until_refused(client)) > len(kept) // 2
    finally:
        cluster.close()


async def until_alarmed(client: Client, endpoint: str, expected: list[str]) -> None:
    """Wait until a member knows these alarms and no others."""
    async with asyncio.timeout(PATIENCE_S):
        while [error for error in (await client.status(endpoint)).errors if "NOSPACE" in error] != expected:
            await asyncio.sleep(0.05)


@dataclass
class Short:
    """Three members, of which one that does not lead has a small quota, exceeded by writes through the leader."""

    cluster: Cluster
    client: Client
    leader: Client
    at: int
    """Which one."""

    @property
    def endpoint(self) -> str:
        return self.cluster.endpoints[self.at]

    async def start_again(self) -> None:
        """Kill that member, and start it with its quota."""
        self.cluster.kill(self.at)
        self.cluster.restart(self.at, f"--quota-backend-bytes={8 << 20}")
        await leader_of(self.client, self.cluster)

    async def until_all_alarmed(self, stands: bool) -> None:
        """Wait until all members know its alarm, or none."""
        id = (await self.client.status(self.endpoint)).member_id
        for endpoint in self.cluster.endpoints:
            await until_alarmed(self.client, endpoint, [f"memberID:{id} alarm:NOSPACE "] if stands else [])


@pytest.fixture
async def short(tmp_path: Path) -> AsyncIterator[Short]:
    cluster = Cluster(tmp_path, 3, ours=True)
    try:
        async with Client(cluster.endpoints, timeout=20) as client:
            leads = await leader_of(client, cluster)
            async with Client([cluster.endpoints[leads]], timeout=20) as leader:
                short = Short(cluster, client, leader, (leads + 1) % 3)
                await short.start_again()
                await put_until_refused(leader)
                yield short
    finally:
        cluster.close()


async def test_the_quota_of_one_member_is_an_alarm_for_all_and_goes_by_itself(short: Short) -> None:
    await short.until_all_alarmed(True)
    with pytest.raises(NoSpace):
        await short.leader.lease_grant(60)
    await short.start_again()
    await refuses(short.leader)
    deleted = await short.leader.delete(PREFIX, range_end=prefix_end(PREFIX))
    await short.leader.compact(deleted.header.revision)
    await put_when_taken(short.leader)
    await short.until_all_alarmed(False)


async def test_an_alarm_that_is_disarmed_too_early_comes_back_and_that_of_a_removed_member_goes(short: Short) -> None:
    assert "alarm:NOSPACE" in etcdctl(short.cluster, "alarm", "disarm")
    await short.leader.put(b"small", b"1")
    async with Client([short.endpoint], timeout=20) as client:
        await refuses(client)
    await short.until_all_alarmed(True)
    await refuses(short.leader)
    id = (await short.client.status(short.endpoint)).member_id
    async with asyncio.timeout(PATIENCE_S):
        while True:
            # Not before the others were connected for a while.
            with contextlib.suppress(StoreError):
                await short.leader.member_remove(id)
                break
            await asyncio.sleep(0.1)
    await put_when_taken(short.leader)


async def test_a_full_disk_refuses_writes_alone_until_it_has_room(full: Full) -> None:
    await full.all_there()
    fill(full.disk)
    await refuses(full.client)
    full.start_again()
    await full.all_there()
    await refuses(full.client)
    full.hog.unlink()
    await put_when_taken(full.client)
    await full.all_there()
    assert full.cluster.processes[0].poll() is None


async def test_deletions_and_compactions_go_on_when_the_disk_is_full(full: Full) -> None:
    deleted = await full.client.delete(PREFIX, range_end=prefix_end(PREFIX))
    assert deleted.deleted >= len(full.kept)
    await full.client.compact(deleted.header.revision)
    full.start_again()
    assert not (await full.client.get(PREFIX, range_end=prefix_end(PREFIX))).kvs
    # A start may have dropped enough of the log to have room again.
    fill(full.disk)
    await put_until_refused(full.client)
    await refuses(full.client)
    full.hog.unlink()
    await put_when_taken(full.client)


async def test_a_cluster_goes_on_when_the_disk_of_one_member_is_full(tmp_path: Path) -> None:
    with small_disk(tmp_path / "m0") as disk:
        cluster = Cluster(tmp_path, 3, ours=True)
        try:
            async with Client(cluster.endpoints[1:], timeout=20) as client, Client(cluster.endpoints[:1]) as full:
                await client.put(b"first", b"1")
                hog = fill(disk)
                with contextlib.suppress(StoreError):
                    await put_until_refused(full)
                for at in range(100):
                    await client.put(f"other/{at}".encode(), VALUE)
                assert (await full.get(b"first", serializable=True)).kvs[0].value == b"1"
                hog.unlink()
                await put_when_taken(full)
                assert len((await full.get(b"other/", range_end=b"other0", keys_only=True)).kvs) == 100
        finally:
            cluster.close()


async def test_a_start_without_room_ends_with_a_sentence(tmp_path: Path) -> None:
    with small_disk(tmp_path / "full") as disk:
        for pages in range(10):
            hog = fill(disk)
            with hog.open("r+b") as file:
                file.truncate(hog.stat().st_size - pages * PAGE)
            urls = ["--listen-client-urls=http://127.0.0.1:0", "--listen-peer-urls=http://127.0.0.1:0"]
            command = [sys.executable, "-m", "kvstore", f"--data-dir={disk}/data{pages}", *urls]
            started = await asyncio.create_subprocess_exec(*command, stderr=subprocess.PIPE)
            _, said = await asyncio.wait_for(started.communicate(), PATIENCE_S)
            last = json.loads(said.decode().splitlines()[-1])
            assert (started.returncode, last["level"]) == (1, "fatal"), (pages, said)
            assert "full" in last["msg"] or "No space left on device" in last["msg"], (pages, said)
