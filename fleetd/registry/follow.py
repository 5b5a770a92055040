"""Follow a prefix: list it at one revision, then watch from the next. When the history that a watch needs was
compacted away, the prefix is listed again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from kvstore.client import Client, prefix_end
from kvstore.errors import Compacted, StoreError
from kvstore.model import Event, KeyValue

PAGE = 1000
"""Keys that one answer of a listing holds at most."""
RETRY_S = 0.2
"""Pause after an answer that failed; the client has already tried every endpoint by then."""


@dataclass(frozen=True)
class Listed:
    """The whole prefix as it was at a revision; what is not in it does not exist."""

    revision: int
    kvs: tuple[KeyValue, ...]


@dataclass(frozen=True)
class Changed:
    """What changed up to a revision, in order."""

    revision: int
    events: tuple[Event, ...]


async def list_prefix(
    client: Client, prefix: bytes, *, end: bytes = b"", revision: int = 0, keys_only: bool = False
) -> Listed:
    """Read a prefix, or the keys from it to before `end`, in pages, all at one revision."""
    end = end or prefix_end(prefix)
    kvs: list[KeyValue] = []
    start = prefix
    while True:
        page = await client.get(start, range_end=end, limit=PAGE, revision=revision, keys_only=keys_only)
        revision = revision or page.header.revision
        kvs.extend(page.kvs)
        if not page.more or not page.kvs:
            return Listed(revision, tuple(kvs))
        start = page.kvs[-1].key + b"\0"


async def follow(client: Client, prefix: bytes, end: bytes = b"") -> AsyncIterator[Listed | Changed]:
    """Yield the prefix, or the keys from it to before `end`, then the changes, for ever. While the store is away
    nothing is yielded."""
    while True:
        try:
            listed = await list_prefix(client, prefix, end=end)
            yield listed
            watch = client.watch(prefix, range_end=end or prefix_end(prefix), start_revision=listed.revision + 1)
            async with watch:
                async for batch in watch:
                    yield Changed(batch.revision, batch.events)
        except Compacted:
            continue
        except StoreError:
            await asyncio.sleep(RETRY_S)
