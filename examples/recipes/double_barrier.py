"""A double barrier: workers begin together and end together.

python examples/recipes/double_barrier.py [ENDPOINT...]
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from kvstore.client import Client
from kvstore.recipes import DoubleBarrier, Session

WORKERS = 3


async def work(client: Client, number: int) -> None:
    """Come at a time of its own, and take a time of its own."""
    await asyncio.sleep(number * 0.2)
    print("came")
    async with Session(client, ttl=10) as session, DoubleBarrier(session, b"barriers/race", WORKERS):
        print("began")
        await asyncio.sleep(number * 0.2)
    print("ended")


async def main(endpoints: Sequence[str]) -> None:
    """All workers, in one process here; each could be on a machine of its own."""
    async with Client(endpoints) as client, asyncio.TaskGroup() as tasks:
        for number in range(WORKERS):
            tasks.create_task(work(client, number))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["http://127.0.0.1:2379"]))
