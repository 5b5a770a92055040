"""KV.RangeStream: its pieces, merged, are what Range answers, and nobody waits for it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvstore.client import Client
from kvstore.errors import StoreError
from kvstore.model import Op
from tests.unit.kvstore.members import Cluster

KEYS = 5_000
MANY = 200_000
TRIES = 5
VALUE = b"v" * 100


async def fill(client: Client, keys: int) -> None:
    """Put so many keys, some transactions at a time."""

    async def put(begin: int) -> None:
        await client.txn([], [Op.put(b"k%06d" % number, VALUE) for number in range(begin, min(begin + 100, keys))])

    for begin in range(0, keys, 3_200):
        await asyncio.gather(*(put(at) for at in range(begin, min(begin + 3_200, keys), 100)))


@pytest.fixture
def ours() -> bool:
    """Whether the members are ours, or of an etcd that has the method (`ETCD=/path`; 3.7)."""
    return True


@pytest.fixture
def cluster(tmp_path: Path, ours: bool) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, ours=ours)
    yield cluster
    cluster.close()


@pytest.fixture
async def client(cluster: Cluster, ours: bool) -> AsyncIterator[Client]:
    async with Client(cluster.endpoints, timeout=30.0) as client:
        await client.get(b"k")  # until it serves
        if not ours and (await client.status(cluster.endpoints[0])).version < "3.7":
            pytest.skip("this etcd streams no ranges")
        yield client


@pytest.mark.parametrize("ours", [True, False])
async def test_the_pieces_merged_are_the_answer_of_range(client: Client) -> None:
    await fill(client, KEYS)
    await client.put(b"l", b"x" * (1 << 20))
    for given in (
        {},
        {"limit": 1},
        {"limit": 1_000},
        {"limit": 1_001},
        {"limit": 2_500},
        {"limit": KEYS + 1},
        {"limit": KEYS + 9},
        {"keys_only": True},
        {"count_only": True},
        {"count_only": True, "limit": 3},
        {"revision": 20},
        {"serializable": True, "sort": ("key", False)},
    ):
        words: dict[str, Any] = {"range_end": b"z", **given}
        op = Op.get(b"k", **words)
        streamed = await client.get_streamed(op)
        assert streamed == await client.operate(op), given
    assert (await client.get_streamed(Op.get(b"k000007"))).kvs[0].value == VALUE
    assert (await client.get_streamed(Op.get(b"none"))).count == 0


@pytest.mark.parametrize("ours", [True, False])
async def test_what_can_not_be_streamed_is_refused_in_etcds_words(client: Client) -> None:
    await client.put(b"k", b"v")
    await client.compact((await client.put(b"k", b"v")).header.revision)
    orders = "RangeStream does not support custom sort orders"
    for words, code, message in (
        ({"sort": ("key", True)}, "unimplemented", orders),
        ({"sort": ("mod", False)}, "unimplemented", orders),
        ({"min_mod_revision": 1}, "unimplemented", "RangeStream does not support revision filters"),
        ({"max_create_revision": 9}, "unimplemented", "RangeStream does not support revision filters"),
        ({"revision": 2}, "out_of_range", "etcdserver: mvcc: required revision has been compacted"),
        ({"revision": 99}, "out_of_range", "etcdserver: mvcc: required revision is a future revision"),
    ):
        with pytest.raises(StoreError) as caught:
            await client.get_streamed(Op.get(b"k", **words))
        assert (caught.value.code, caught.value.message) == (code, message)


OTHERS = """
import asyncio, sys, time
from kvstore.client import Client

async def main():
    longest, answered = 0.0, 0
    end = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    async with Client(sys.argv[1:], timeout=30.0) as client:
        await client.put(b"other", b"v")
        print("begun", flush=True)
        while not end.done():
            begin = time.monotonic()
            await client.put(b"other", b"v")
            longest, answered = max(longest, time.monotonic() - begin), answered + 1
    print(answered, longest)

asyncio.run(main())
"""
"""Puts one after the other until its input ends; prints how many, and the longest one's seconds."""


async def test_others_are_answered_while_many_keys_are_streamed(client: Client, cluster: Cluster) -> None:
    """A busy machine may leave the others no time for so much; where they wait for the stream, no try shows it."""
    await fill(client, MANY)
    seen = []
    for _ in range(TRIES):
        answered, longest, took = await beside_a_stream(client, cluster)
        seen.append(f"{took:.2f} s; {answered} puts meanwhile, the longest {longest * 1000:.0f} ms")
        if answered > 10 and longest < took / 2:
            break
    print(f"{MANY} keys in", *seen, sep="\n")
    assert answered > 10 and longest < took / 2, seen


async def beside_a_stream(client: Client, cluster: Cluster) -> tuple[int, float, float]:
    """How many puts others did while all was streamed, the longest of them, and how long the stream took."""
    others = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", OTHERS, *cluster.endpoints),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert others.stdin is not None and others.stdout is not None
    assert await others.stdout.readline() == b"begun\n"
    begin = time.monotonic()
    found = await client.get_streamed(Op.get(b"k", range_end=b"l"))
    took = time.monotonic() - begin
    assert len(found.kvs) == found.count == MANY
    others.stdin.close()
    answered, longest = (await others.stdout.read()).split()
    await others.wait()
    return int(answered), float(longest), took
