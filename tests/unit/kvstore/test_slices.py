"""What takes long is done in slices: small requests are answered while it is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from kvstore.client import Client, prefix_end
from kvstore.model import Op
from tests.unit.kvstore.members import Cluster, hash_kv

PREFIX = b"many/"
KEYS = 300_000
PER_TXN = 100
ROUNDS = 2
AT_LEAST = 10
"""Small requests that end meanwhile; where the store is held, one or two that were just begun do."""


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


async def test_small_requests_are_answered_beside_large_reads_hashes_and_compactions(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 1)
    try:
        async with Client(cluster.endpoints, timeout=60) as one, Client(cluster.endpoints, timeout=60) as other:
            await one.put(b"small", b"1")
            for _ in range(ROUNDS):
                await fill(one)
            counted = one.get(PREFIX, range_end=prefix_end(PREFIX), count_only=True)
            assert await answered_during(other, counted) >= AT_LEAST
            revision = (await one.get(b"small")).header.revision
            assert await answered_during(other, hash_kv(one, cluster.endpoints[0])) >= AT_LEAST
            assert await answered_during(other, one.compact(revision, physical=True)) >= AT_LEAST
    finally:
        cluster.close()
