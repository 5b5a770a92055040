"""A tour through the foreign client's own API, run by its interpreter: takes an address, prints what it is told."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from typing import Any

aetcd: Any = importlib.import_module("aetcd")
LEASE_TTL_S = 600


def shown(pair: Any) -> Any:
    """What a key-value has, or None."""
    if pair is None:
        return None
    names = ("key", "value", "create_revision", "mod_revision", "version", "lease")
    return {name: str(getattr(pair, name)) for name in names if hasattr(pair, name)}


async def keys(client: Any, told: list[Any]) -> None:
    await client.put(b"k/1", b"a")
    told.append(shown((await client.put(b"k/1", b"b", prev_kv=True)).prev_kv))
    await client.put(b"k/2", b"c")
    told.append(shown(await client.get(b"k/1")))
    told.append(shown(await client.get(b"none")))
    told.append([shown(pair) for pair in await client.get_prefix(b"k/", sort_order="descend")])
    told.append([shown(pair) for pair in await client.get_range(b"k/1", b"k/2")])
    told.append(await client.replace(b"k/1", b"b", b"d"))
    told.append(await client.replace(b"k/1", b"b", b"e"))
    told.append(shown(await client.delete(b"k/2", prev_kv=True)))


async def transactions(client: Any, told: list[Any]) -> None:
    choice = client.transactions
    succeeded, answers = await client.transaction(
        compare=[choice.value(b"k/1") == b"d", choice.version(b"k/1") > 1],
        success=[choice.put(b"t", b"1"), choice.get(b"t")],
        failure=[choice.delete(b"t")],
    )
    told.append([succeeded, len(answers)])


async def leases(client: Any, told: list[Any]) -> None:
    lease = await client.lease(LEASE_TTL_S)
    await client.put(b"l", b"1", lease=lease)
    told.append((await lease.granted_ttl(), [key.decode() for key in await lease.keys()]))
    await lease.refresh()
    await lease.revoke()
    told.append(shown(await client.get(b"l")))


async def watches(client: Any, told: list[Any]) -> None:
    watch = await client.watch_prefix(b"w/")
    await client.put(b"w/1", b"a")
    await client.delete(b"w/1")
    async for event in watch:
        told.append([str(event.kind), shown(event.kv)])
        if len(event.kv.value) == 0:
            break
    await watch.cancel()


async def tour(address: str) -> list[Any]:
    host, _, port = address.partition(":")
    told: list[Any] = []
    async with aetcd.Client(host=host, port=int(port)) as client:
        for part in (keys, transactions, leases, watches):
            await part(client, told)
        async with client.lock(b"mutex", ttl=LEASE_TTL_S) as lock:
            told.append(await lock.is_acquired())
    return told


if __name__ == "__main__":
    print(json.dumps(asyncio.run(tour(sys.argv[1]))))
