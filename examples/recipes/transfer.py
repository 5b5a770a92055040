"""Optimistic transactions: money moves between accounts while others move theirs; the sum stays.

python examples/recipes/transfer.py [ENDPOINT...]
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from kvstore.client import Client
from kvstore.recipes import Session, Transaction, transact

ACCOUNTS = [b"accounts/%d" % number for number in range(3)]


async def balance(transaction: Transaction, account: bytes) -> int:
    """What is on an account, as this transaction sees it."""
    return int(await transaction.get(account) or b"0")


async def transfer(session: Session, source: bytes, target: bytes, amount: int) -> bool:
    """Move an amount, if it is there."""

    async def body(transaction: Transaction) -> bool:
        left = await balance(transaction, source) - amount
        if left < 0:
            return False
        transaction.put(source, b"%d" % left)
        transaction.put(target, b"%d" % (await balance(transaction, target) + amount))
        return True

    return await transact(session, body)  # run again whenever somebody else was faster


async def main(endpoints: Sequence[str]) -> None:
    """Thirty transfers at once, in a circle."""
    async with Client(endpoints) as client, Session(client, ttl=10) as session:
        for account in ACCOUNTS:
            await client.put(account, b"100")
        pairs = [(ACCOUNTS[turn % 3], ACCOUNTS[(turn + 1) % 3]) for turn in range(30)]
        moved = await asyncio.gather(*(transfer(session, source, target, 5) for source, target in pairs))
        print("transfers:", sum(moved))

        async def audit(transaction: Transaction) -> list[int]:
            return [await balance(transaction, account) for account in ACCOUNTS]

        balances = await transact(session, audit)
        print("balances:", *balances, "sum:", sum(balances))
        print("more than there is:", await transfer(session, ACCOUNTS[0], ACCOUNTS[1], 1000))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["http://127.0.0.1:2379"]))
