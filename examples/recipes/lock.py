"""A lock whose holder freezes: the store refuses its late write by the fence, a disk by the token.

python examples/recipes/lock.py [ENDPOINT...]
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from kvstore.client import Client
from kvstore.model import Op
from kvstore.recipes import Lock, Session


class Disk:
    """Something outside the store. It protects itself: it takes no token smaller than the greatest it has seen."""

    def __init__(self) -> None:
        self.greatest = 0

    def write(self, token: int, text: str) -> None:
        """Write, if the token is not too old."""
        accepted = token >= self.greatest
        self.greatest = max(self.greatest, token)
        print(f"disk: {text!r} {'written' if accepted else 'refused'}")


async def main(endpoints: Sequence[str]) -> None:
    """One worker freezes with the lock in its hand; another one goes on."""
    disk = Disk()
    async with Client(endpoints) as client, Session(client, ttl=2) as steady:
        frozen = Session(client, ttl=2)
        await frozen.open()
        old = Lock(frozen, b"locks/disk")
        await old.acquire()
        token, fence = old.token, old.fence
        disk.write(token, "from the first")
        await frozen.orphan()  # from here on nobody renews its lease, as if the process had been stopped

        async with Lock(steady, b"locks/disk") as lock:  # after 2 s, when that lease has ended
            disk.write(lock.token, "from the second")
            done = await client.txn([lock.fence], [Op.put(b"disk/owner", b"the second")])
            print("store: 'the second'", "written" if done.succeeded else "refused")

            # The first one wakes up, and does not know yet.
            disk.write(token, "late, from the first")
            done = await client.txn([fence], [Op.put(b"disk/owner", b"the first")])
            print("store: 'the first'", "written" if done.succeeded else "refused")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["http://127.0.0.1:2379"]))
