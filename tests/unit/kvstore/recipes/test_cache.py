"""WatchCache: it shows one revision of a prefix, only goes forward, and survives cuts and compactions."""

from __future__ import annotations

import asyncio
import random

import pytest

from kvstore.client import Client, prefix_end
from kvstore.errors import StoreError
from kvstore.model import Op
from kvstore.recipes import RecipeError, WatchCache
from tests.unit.kvstore.members import Cluster
from tests.unit.kvstore.recipes.conftest import PATIENCE_S
from tests.unit.kvstore.recipes.proxy import Proxy


async def test_it_shows_what_is_there_and_what_comes(client: Client) -> None:
    await client.put(b"p/a", b"1")
    await client.put(b"other", b"1")
    async with asyncio.timeout(PATIENCE_S), WatchCache(client, b"p/") as cache:
        assert list(cache) == [b"p/a"] and cache[b"p/a"].value == b"1" and b"p/b" not in cache
        await client.put(b"p/b", b"2")
        deleted = await client.delete(b"p/a")
        await cache.until(deleted.header.revision)
        assert {key: kv.value for key, kv in cache.items()} == {b"p/b": b"2"} and len(cache) == 1
        assert cache.revision == deleted.header.revision
        waiting = asyncio.create_task(cache.wait_for(lambda now: b"p/c" in now))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await client.put(b"p/c", b"3")
        await waiting
    with pytest.raises(StoreError, match="closed"):
        _ = cache[b"p/b"]
    with pytest.raises(RecipeError, match="not loaded"):
        _ = WatchCache(client, b"p/").get(b"x")


async def test_it_never_shows_half_of_a_transaction(client: Client) -> None:
    """Two keys that always change together are the same at every moment."""

    async def write() -> None:
        for number in range(200):
            value = b"%d" % number
            await client.txn([], [Op.put(b"p/a", value), Op.put(b"p/b", value)])

    seen: list[tuple[int, int]] = []

    def whole(cache: WatchCache) -> bool:
        values = [int(kv.value) for kv in cache.values()]
        assert len(values) in (0, 2) and len(set(values)) <= 1, values
        seen.append((cache.revision, values[0] if values else -1))
        return seen[-1][1] == 199

    async with asyncio.timeout(PATIENCE_S), WatchCache(client, b"p/") as cache, asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        await cache.wait_for(whole)
    assert seen == sorted(seen) and len(seen) > 2


async def test_after_any_history_it_is_what_the_store_is(cluster: Cluster, client: Client, wire: Proxy) -> None:
    """With cuts in between, and compactions of what it has not seen."""
    chance = random.Random(7)
    async with Client([wire.endpoint]) as cut_off, WatchCache(cut_off, b"p/") as cache:
        for _ in range(4):
            wire.cut()
            for _ in range(30):
                key = b"p/%d" % chance.randrange(8)
                done = await (client.delete(key) if chance.random() < 0.4 else client.put(key, b"%f" % chance.random()))
            if chance.random() < 0.7:
                await client.compact(done.header.revision)
            wire.mend()
            last = await client.put(b"p/last", b"%d" % done.header.revision)
            async with asyncio.timeout(PATIENCE_S):
                await cache.until(last.header.revision)
            found = (await client.get(b"p/", range_end=prefix_end(b"p/"))).kvs
            assert dict(cache) == {kv.key: kv for kv in found}


async def test_waiting_ends_when_the_cache_is_closed(client: Client) -> None:
    async with WatchCache(client, b"p/") as cache:
        waiting = asyncio.create_task(cache.until(1 << 40))
        await asyncio.sleep(0.05)
    with pytest.raises(StoreError, match="closed"):
        await waiting
