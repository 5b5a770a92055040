"""A barrier: workers wait until the preparations are done.

python examples/recipes/barrier.py [ENDPOINT...]
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from kvstore.client import Client
from kvstore.recipes import Barrier


async def main(endpoints: Sequence[str]) -> None:
    """Hold three workers up for a while."""
    async with Client(endpoints) as client, asyncio.TaskGroup() as tasks:

        async def work() -> None:
            await Barrier(client, b"barriers/prepared").wait()
            print("working")

        async with Barrier(client, b"barriers/prepared"):
            for _ in range(3):
                tasks.create_task(work())
            await asyncio.sleep(0.5)
            print("prepared")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["http://127.0.0.1:2379"]))
