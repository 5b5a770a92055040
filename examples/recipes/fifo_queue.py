"""A queue: each job goes to one worker, in the order of coming.

python examples/recipes/fifo_queue.py [ENDPOINT...]
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from kvstore.client import Client
from kvstore.recipes import Queue, Session

JOBS = 6


async def main(endpoints: Sequence[str]) -> None:
    """Two workers share six jobs."""
    done: list[str] = []

    async def work(client: Client) -> None:
        async with Session(client, ttl=10) as session:
            queue = Queue(session, b"queues/jobs")
            while (job := (await queue.get()).decode()) != "go home":
                done.append(job)

    async with Client(endpoints) as client, Session(client, ttl=10) as session, asyncio.TaskGroup() as tasks:
        workers = [tasks.create_task(work(client)) for _ in range(2)]
        queue = Queue(session, b"queues/jobs")
        for number in range(JOBS):
            await queue.put(f"job {number}".encode())
        for _ in workers:
            await queue.put(b"go home")
    print(len(done), "done:", ", ".join(sorted(done)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["http://127.0.0.1:2379"]))
