"""What a compaction leaves: reads and watches from every revision, after every compaction, deletions included."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from kvstore.client import Client, prefix_end
from kvstore.errors import Compacted
from tests.unit.kvstore.members import Cluster, hash_kv, leader_of

PREFIX = b"h/"
STEPS = ("put a", "put b", "del a", "put a", "del a", "del b", "put c", "put a")
"""What happens, at revisions 2, 3, 4, ... of a new store."""
TRIES = 8
Seen = list[tuple[int, str, bytes]]


def happened(at: int) -> Seen:
    """What a watch from revision `at` on is owed."""
    seen: Seen = []
    for revision, step in enumerate(STEPS, 2):
        kind, key = step.split()
        if revision >= at:
            seen.append((revision, "put" if kind == "put" else "delete", key.encode()))
    return seen


def held(at: int) -> set[bytes]:
    """The keys that were there at revision `at`."""
    keys: set[bytes] = set()
    for step in STEPS[: at - 1]:
        kind, key = step.split()
        (keys.add if kind == "put" else keys.discard)(key.encode())
    return keys


async def watched(client: Client, start: int, last: int) -> Seen:
    """Everything from revision `start` to `last`, which is a put."""
    seen: Seen = []
    async with client.watch(PREFIX, range_end=prefix_end(PREFIX), start_revision=start) as watch, asyncio.timeout(60):
        async for batch in watch:
            seen += [(one.kv.mod_revision, one.type, one.kv.key.removeprefix(PREFIX)) for one in batch.events]
            if seen and seen[-1][0] >= last:
                return seen
    raise AssertionError("the watch ended")


@pytest.mark.parametrize("ours", [True, False], ids=["ours", "etcd"])
async def test_every_revision_after_every_compaction(tmp_path: Path, ours: bool) -> None:
    cluster = Cluster(tmp_path, 1, ours=ours)
    try:
        async with Client(cluster.endpoints, timeout=20) as client:
            for step in STEPS:
                kind, key = step.split()
                name = PREFIX + key.encode()
                done = await (client.put(name, b"") if kind == "put" else client.delete(name))
            last = done.header.revision
            assert last == len(STEPS) + 1
            for compacted in range(2, last + 1):
                await client.compact(compacted, physical=True)
                for at in range(1, last + 1):
                    cell = f"compacted at {compacted}, from {at}"
                    if at < compacted:
                        with pytest.raises(Compacted):
                            await client.get(PREFIX, range_end=prefix_end(PREFIX), revision=at)
                        with pytest.raises(Compacted) as caught:
                            await watched(client, at, last)
                        assert caught.value.revision == compacted, cell
                        continue
                    found = await client.get(PREFIX, range_end=prefix_end(PREFIX), revision=at)
                    assert {kv.key.removeprefix(PREFIX) for kv in found.kvs} == held(at), cell
                    owed = happened(at)
                    if not ours and at == compacted and owed[0][1] == "delete":
                        owed = owed[1:]  # Debian's etcd forgets a deletion at the compaction's own revision
                    assert await watched(client, at, last) == owed, cell
    finally:
        cluster.close()


async def compacted_at(client: Client, endpoints: list[str]) -> int:
    """Up to where members that live have compacted, the first of them."""
    answers = await asyncio.gather(*(hash_kv(client, one) for one in endpoints), return_exceptions=True)
    return max(one["compact_revision"] for one in answers if not isinstance(one, BaseException))


async def led(client: Client, endpoints: list[str]) -> None:
    """Wait until these members have one of them as leader."""
    async with asyncio.timeout(60):
        while True:
            status = [await client.status(one) for one in endpoints]
            if {one.leader for one in status} <= {one.member_id for one in status}:
                return
            await asyncio.sleep(0.05)


async def put_and_read(client: Client) -> int:
    """Put a key and read what it was before, which is not compacted at once; its revision.

    A busy machine may take longer than the retention to read it, so it is tried again.
    """
    for _ in range(TRIES):
        last = [await client.put(b"k", b"v") for _ in range(5)][-1].header.revision
        with contextlib.suppress(Compacted):
            assert (await client.get(b"k", revision=last - 1)).kvs
            return last
    raise AssertionError(f"compacted at once, {TRIES} times")


@pytest.mark.parametrize("ours", [True, False], ids=["ours", "etcd"])
async def test_what_is_older_than_the_retention_is_compacted_by_whoever_leads(tmp_path: Path, ours: bool) -> None:
    flags = ("--auto-compaction-mode=periodic", "--auto-compaction-retention=1s")
    cluster = Cluster(tmp_path, 3, ours=ours, flags=flags)
    try:
        async with Client(cluster.endpoints, timeout=20) as client:
            leader = await leader_of(client, cluster)
            for turn in range(2):
                last = await put_and_read(client)
                async with asyncio.timeout(60):
                    while await compacted_at(client, cluster.endpoints) < last:
                        await asyncio.sleep(0.1)
                with pytest.raises(Compacted):
                    await client.get(b"k", revision=last - 1)
                if turn == 0:
                    cluster.kill(leader)
                    alive = [url for at, url in enumerate(cluster.endpoints) if at != leader]
                    await led(client, alive)
    finally:
        cluster.close()
