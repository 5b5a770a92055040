"""The store's history on a real store."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from fleetd.engine.history import compact
from kvstore.client import Client
from kvstore.errors import Compacted
from tests.unit.fleetd.world import store

KEEP_S = 0.3
TRIES = 20


async def test_old_revisions_go_and_newer_ones_stay(tmp_path: Path) -> None:
    with store(tmp_path) as url:
        client = Client([url])
        first = (await client.put(b"k", b"1")).header.revision
        await client.put(b"k", b"2")
        task = asyncio.create_task(compact(client, KEEP_S))
        try:
            async with asyncio.timeout(60):
                while True:
                    try:
                        await client.get(b"k", revision=first)
                    except Compacted:
                        break
                    await asyncio.sleep(0.05)
            assert (await client.get(b"k")).kvs[0].value == b"2"
            for _ in range(TRIES):  # a busy machine may take longer than revisions are kept
                latest = (await client.put(b"k", b"3")).header.revision
                await client.put(b"k", b"4")
                with contextlib.suppress(Compacted):
                    assert (await client.get(b"k", revision=latest)).kvs[0].value == b"3"
                    break
            else:
                raise AssertionError(f"what is new is compacted, {TRIES} times")
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await client.close()
