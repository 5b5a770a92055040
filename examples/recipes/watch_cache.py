"""A watch-cache: a copy of a prefix that follows the store, and reads that ask nobody.

python examples/recipes/watch_cache.py [ENDPOINT...]
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from kvstore.client import Client
from kvstore.model import Compare, Op
from kvstore.recipes import WatchCache


async def main(endpoints: Sequence[str]) -> None:
    """Read settings from a cache, and change one that has not changed meanwhile."""
    async with Client(endpoints) as client:
        await client.put(b"settings/color", b"red")
        async with WatchCache(client, b"settings/") as cache:
            print("color:", cache[b"settings/color"].value.decode())

            # What was decided by the cache is checked by the store: the cache may lag.
            seen = cache[b"settings/color"]
            unchanged = Compare.mod(seen.key, "=", seen.mod_revision)
            done = await client.txn([unchanged], [Op.put(seen.key, b"green")])
            print("changed:", done.succeeded)

            await cache.until(done.header.revision)  # now it shows that write
            print("color:", cache[b"settings/color"].value.decode())
            done = await client.txn([unchanged], [Op.put(seen.key, b"blue")])
            print("changed by what was seen first:", done.succeeded)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["http://127.0.0.1:2379"]))
