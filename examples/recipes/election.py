"""An election: one of several leads, the next follows when it resigns or dies, an observer sees them in order.

python examples/recipes/election.py [ENDPOINT...]
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from kvstore.client import Client
from kvstore.recipes import Election, Session


async def stand(client: Client, name: str) -> None:
    """Campaign, lead for a moment, and resign."""
    async with Session(client, ttl=10) as session:
        election = Election(session, b"elections/boss")
        await election.campaign(name.encode())
        async with session.guarded():  # interrupted when the lead may have been lost
            await asyncio.sleep(0.2)
            await election.proclaim(f"{name} is done".encode())
        await election.resign()


async def watch(client: Client, count: int) -> None:
    """Print what leaders say."""
    async with Session(client) as session:
        async for leader in Election(session, b"elections/boss").observe():
            print("leader says:", leader.value.decode())
            if (count := count - 1) == 0:
                return


async def main(endpoints: Sequence[str]) -> None:
    """Three stand one after the other."""
    async with Client(endpoints) as client, asyncio.TaskGroup() as tasks:
        tasks.create_task(watch(client, 6))
        for name in ("anna", "bert", "cleo"):
            await asyncio.sleep(0.1)
            tasks.create_task(stand(client, name))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["http://127.0.0.1:2379"]))
