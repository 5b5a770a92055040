"""Waiting on a store that may be away for a while: reads that go on, and keys that go. Bounded by the caller's own
timeout or by its session, which cancels it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from kvstore.client import Client, prefix_end
from kvstore.errors import Compacted, Unavailable

T = TypeVar("T")

RETRY_S = 0.1
"""Pause before a call is made again that nobody answered; the client itself has then asked every endpoint."""


async def pause() -> None:
    """Wait before a call is made again."""
    await asyncio.sleep(RETRY_S)


async def patiently(read: Callable[[], Awaitable[T]]) -> T:
    """What a read answers, asked again as long as nobody does. Not for writes: they could happen twice."""
    while True:
        try:
            return await read()
        except Unavailable:
            await pause()


async def gone(client: Client, key: bytes, since: int) -> bool:
    """True once a key was deleted at revision `since` or later; False when that history is compacted: look again."""
    return await _seen(client, key, b"", since, "delete")


async def put(client: Client, key: bytes, since: int) -> bool:
    """True once a key was put at revision `since` or later; False when that history is compacted."""
    return await _seen(client, key, b"", since, "put")


async def put_under(client: Client, prefix: bytes, since: int) -> bool:
    """True once a key with this prefix was put at revision `since` or later; False when that history is compacted."""
    return await _seen(client, prefix, prefix_end(prefix), since, "put")


async def _seen(client: Client, key: bytes, range_end: bytes, since: int, kind: str) -> bool:
    with contextlib.suppress(Compacted):
        async with client.watch(key, range_end=range_end, start_revision=since) as watch:
            async for batch in watch:
                if any(event.type == kind for event in batch.events):
                    return True
    return False
