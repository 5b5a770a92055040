"""Asks the stores of a lab who leads them, from inside the lab's network namespace. Run by `status`, in a process of
its own: entering a network namespace is for good."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from cli.lab import namespaces
from kvstore.client import Client
from kvstore.errors import StoreError

ASK_TIMEOUT_S = 2.0


async def leader(urls: list[str]) -> str:
    """Return the client URL of the member that leads by its own word, the newest term's; empty when none does."""
    client = Client(urls, timeout=ASK_TIMEOUT_S)
    try:
        answers = await asyncio.gather(*(_status(client, url) for url in urls))
    finally:
        await client.close()
    terms = {
        answer[2]: url
        for url, answer in zip(urls, answers, strict=True)
        if answer is not None and answer[0] == answer[1] != 0
    }
    return terms[max(terms)] if terms else ""


async def _status(client: Client, url: str) -> tuple[int, int, int] | None:
    try:
        status = await client.status(url)
    except StoreError:
        return None
    return status.leader, status.member_id, status.raft_term


if __name__ == "__main__":
    namespaces.enter(Path(sys.argv[1]), namespaces.NEW_NET)
    print(asyncio.run(leader(sys.argv[2:])))
