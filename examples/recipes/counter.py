"""A counter: many add at once, and each gets a number of its own.

python examples/recipes/counter.py [ENDPOINT...]
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from kvstore.client import Client
from kvstore.recipes import Counter, Session


async def main(endpoints: Sequence[str]) -> None:
    """Twenty visitors draw a ticket each."""
    async with Client(endpoints) as client, Session(client, ttl=10) as session:
        counter = Counter(session, b"counters/tickets")
        before = await counter.value()
        tickets = await asyncio.gather(*(counter.add() for _ in range(20)))
        print("tickets:", *sorted(ticket - before for ticket in tickets))
        print("counted:", await counter.value() - before)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["http://127.0.0.1:2379"]))
