"""A priority queue: the most urgent job first, and of one priority the oldest.

python examples/recipes/priority_queue.py [ENDPOINT...]
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from kvstore.client import Client
from kvstore.recipes import PriorityQueue, Session


async def main(endpoints: Sequence[str]) -> None:
    """Put what comes, take what is urgent."""
    async with Client(endpoints) as client, Session(client, ttl=10) as session:
        queue = PriorityQueue(session, b"queues/house")
        await queue.put(b"sweep the yard", 7)
        await queue.put(b"put out the fire", 0)
        await queue.put(b"feed the cat", 3)
        await queue.put(b"feed the dog", 3)
        for _ in range(await queue.size()):
            print((await queue.get()).decode())
        try:
            async with asyncio.timeout(0.5):
                await queue.get()
        except TimeoutError:
            print("nothing to do")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["http://127.0.0.1:2379"]))
