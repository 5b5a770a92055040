"""What takes long is done in slices: small requests are answered while it is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from kvstore.client import Client, prefix_end
from kvstore.model import Op
from tests.unit.kvstore.members import Cluster, hash_kv

PREFIX = b"many/"
KEYS = 300_000
PER_TXN = 100
ROUNDS = 2
AT_LEAST = 5
"""Small requests that end meanwhile; where the store is held, one or two that were just begun do."""
TRIES = 8
"""A busy machine may leave this client no time for so many; a store that is held answers them in no try."""


async def fill(client: Client) -> None:
    """Change all keys once."""

    async def part(begin: int) -> None:
        for at in range(begin, KEYS, 32 * PER_TXN):
            await client.txn([], [Op.put(PREFIX + b"%06d" % key, b"v" * 20) for key in range(at, at + PER_TXN)], [])

    await asyncio.gather(*(part(at * PER_TXN) for at in range(32)))


async def answered_during(client: Client, long: Awaitable[Any]) -> int:
    """Small requests that were begun and answered while `long` was under way."""
    task = asyncio.ensure_future(long)
    answered = 0
    while not task.done():
        await client.get(b"small")
        answered += not task.done()
    await task
    return answered


async def assert_answers_beside(client: Client, begin: Callable[[], Awaitable[Awaitable[Any]]]) -> None:
    """Small requests are answered while what `begin` gives is under way."""
    answered: list[int] = []
    while not answered or answered[-1] < AT_LEAST:
        assert len(answered) < TRIES, f"small requests that were answered meanwhile: {answered}"
        answered.append(await answered_during(client, await begin()))


async def test_small_requests_are_answered_beside_large_reads_hashes_and_compactions(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 1)
    try:
        async with Client(cluster.endpoints, timeout=60) as one, Client(cluster.endpoints, timeout=60) as other:

            async def count() -> Awaitable[Any]:
                return one.get(PREFIX, range_end=prefix_end(PREFIX), count_only=True)

            async def hashes() -> Awaitable[Any]:
                return hash_kv(one, cluster.endpoints[0])

            async def compaction() -> Awaitable[Any]:
                await fill(one)
                revision = (await one.get(b"small")).header.revision
                return one.compact(revision, physical=True)

            await one.put(b"small", b"1")
            await fill(one)
            await assert_answers_beside(other, count)
            await assert_answers_beside(other, hashes)
            await assert_answers_beside(other, compaction)
    finally:
        cluster.close()


async def test_small_requests_are_answered_beside_a_watch_of_a_large_revision(tmp_path: Path) -> None:
    """The changes of one transaction come together: no answer to the watch ends the store's work on them."""
    cluster = Cluster(tmp_path, 1)
    try:
        async with Client(cluster.endpoints, timeout=60) as one, Client(cluster.endpoints, timeout=60) as other:
            await one.put(b"small", b"1")
            await fill(one)
            deleted = (await one.delete(PREFIX, range_end=prefix_end(PREFIX))).header.revision

            async def first() -> None:
                async with one.watch(PREFIX, range_end=prefix_end(PREFIX), start_revision=deleted) as watch:
                    assert len((await anext(watch)).events) == KEYS

            async def watch() -> Awaitable[Any]:
                return first()

            await assert_answers_beside(other, watch)
    finally:
        cluster.close()
