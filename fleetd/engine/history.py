"""Old revisions do not pile up: the leader compacts the store's history, as etcd's periodic auto-compaction does."""

from __future__ import annotations

import asyncio
import logging

from kvstore.client import Client
from kvstore.errors import StoreError

log = logging.getLogger(__name__)

KEEP_S = 3600.0
"""What was overwritten or deleted can be read and watched for at least this long, and at most twice as long."""


async def compact(client: Client, keep: float = KEEP_S) -> None:
    """Forget, every `keep` seconds, what was overwritten before the last time. Runs until cancelled."""
    while True:
        try:
            revision = (await client.txn([], [])).header.revision
            await asyncio.sleep(keep)
            await client.compact(revision)
        except StoreError as error:  # nothing new since, or somebody compacted further, or no store now
            log.debug("The store's history was not compacted: %s", error)
            await asyncio.sleep(min(keep, 1.0))
