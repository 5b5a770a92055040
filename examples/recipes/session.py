"""A leased session: what hangs on it vanishes with its holder, and the holder is told when it is lost.

python examples/recipes/session.py [ENDPOINT...]
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from kvstore.client import Client
from kvstore.recipes import Session, SessionLost


async def main(endpoints: Sequence[str]) -> None:
    """Register a worker, and let an operator end its lease."""
    async with Client(endpoints) as client, Session(client, ttl=2) as session:
        await client.put(b"workers/a", b"here", lease=session.lease)
        try:
            async with session.guarded():  # this body is interrupted when the session is lost
                print("working")
                await asyncio.sleep(3)
                print("still there after the TTL:", session.alive)
                await client.lease_revoke(session.lease)  # an operator does this, or the machine was cut off
                await asyncio.sleep(60)
                print("never printed")
        except SessionLost:
            print("lost the session, stopped working")
        print("registered:", (await client.get(b"workers/a")).count)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["http://127.0.0.1:2379"]))
