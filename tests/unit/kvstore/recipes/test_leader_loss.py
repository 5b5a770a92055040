"""Every recipe goes on when the leader is killed, and when the next one freezes and wakes up again with requests that
were given up long ago: nothing is lost and nothing is done twice."""

from __future__ import annotations

import asyncio
import collections
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TypeVar

import pytest

from kvstore.client import Client, prefix_end
from kvstore.errors import Unavailable
from kvstore.model import Op
from kvstore.recipes import (
    Barrier,
    Counter,
    DoubleBarrier,
    Election,
    Lock,
    PriorityQueue,
    Queue,
    Session,
    Transaction,
    WatchCache,
    transact,
)
from tests.unit.kvstore.members import Cluster, leader_of
from tests.unit.kvstore.recipes.conftest import keys

T = TypeVar("T")

MEMBERS = 3
DOWN_S = 1.5
FROZEN_S = 3.0
"""Longer than a client waits for a silent member: what it had sent is then sent to another."""
PATIENCE_S = 120
TTL_S = 20
CALL_TIMEOUT_S = 2


class Store:
    """A cluster whose leader dies while others work on it."""

    def __init__(self, cluster: Cluster, stack: AsyncExitStack) -> None:
        self.cluster = cluster
        self._stack = stack
        self.calm = asyncio.Event()
        """Set when the leaders have had their accidents and all members are there again."""

    async def client(self) -> Client:
        """One that asks the members in an order of its own."""
        endpoints = random.sample(self.cluster.endpoints, MEMBERS)
        return await self._stack.enter_async_context(Client(endpoints, timeout=CALL_TIMEOUT_S))

    async def session(self) -> Session:
        return await self._stack.enter_async_context(Session(await self.client(), ttl=TTL_S))

    async def lose_leaders(self) -> None:
        """Kill the leader and let it come back; freeze the next one and let it go on."""
        client = await self.client()
        await asyncio.sleep(0.5)
        leader = await leader_of(client, self.cluster)
        self.cluster.kill(leader)
        await asyncio.sleep(DOWN_S)
        self.cluster.restart(leader)
        await leader_of(client, self.cluster)
        await asyncio.sleep(0.5)
        leader = await leader_of(client, self.cluster)
        self.cluster.processes[leader].send_signal(signal.SIGSTOP)
        await asyncio.sleep(FROZEN_S)
        self.cluster.processes[leader].send_signal(signal.SIGCONT)
        await leader_of(client, self.cluster)
        await asyncio.sleep(0.5)
        self.calm.set()

    async def through(self, *works: Callable[[], Awaitable[None]]) -> None:
        """Do all of it while leaders die."""
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
            tasks.create_task(self.lose_leaders())
            for work in works:
                tasks.create_task(_run(work))


async def _run(work: Callable[[], Awaitable[None]]) -> None:
    await work()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    cluster = Cluster(tmp_path, MEMBERS)
    try:
        async with AsyncExitStack() as stack:
            made = Store(cluster, stack)
            await leader_of(await made.client(), cluster)
            yield made
    finally:
        cluster.close()


async def test_locks_and_their_fence(store: Store) -> None:
    """A number under a lock, read and written in two steps, loses no step; tokens only grow."""
    steps = inside = 0
    tokens: list[int] = []

    async def work() -> None:
        nonlocal steps, inside
        session = await store.session()
        while not store.calm.is_set():
            async with Lock(session, b"mutex") as lock:
                inside += 1
                assert inside == 1
                tokens.append(lock.token)
                found = await patient(lambda: session.client.get(b"number"))
                number = int(found.kvs[0].value) if found.kvs else 0
                step = [Op.put(b"number", b"%d" % (number + 1))]
                # The same put again does no harm while the lock is held, and the fence sees to that it is.
                done = await patient(lambda: session.client.txn([lock.fence], step))  # noqa: B023
                assert done.succeeded
                steps += 1
                inside -= 1

    await store.through(*[work] * 5)
    client = await store.client()
    assert (await client.get(b"number")).kvs[0].value == b"%d" % steps and steps > 10
    assert tokens == sorted(set(tokens)) and await keys(client, b"mutex/") == []


async def patient(call: Callable[[], Awaitable[T]]) -> T:
    """Ask until somebody answers."""
    while True:
        try:
            return await call()
        except Unavailable:
            await asyncio.sleep(0.05)


async def test_elections(store: Store) -> None:
    """Leaders follow each other, one at a time, and an observer sees the terms grow."""
    leading = 0
    terms: list[int] = []
    seen: list[int] = []

    async def stand() -> None:
        nonlocal leading
        election = Election(await store.session(), b"lead")
        while not store.calm.is_set():
            await election.campaign(b"campaign")
            leading += 1
            assert leading == 1
            terms.append(election.term)
            await election.proclaim(b"proclaim")
            leading -= 1
            await election.resign()

    async def observe() -> None:
        async for leader in Election(await store.session(), b"lead").observe():
            seen.append(leader.create_revision)
            if store.calm.is_set():
                return

    async def stand_at_last() -> None:
        await store.calm.wait()
        await asyncio.sleep(1)
        await Election(await store.session(), b"lead").campaign(b"last")

    await store.through(*[stand] * 4, observe, stand_at_last)
    assert terms == sorted(set(terms)) and len(terms) > 10
    assert seen == sorted(seen) and len(set(seen)) > 2


@pytest.mark.parametrize("kind", [Queue, PriorityQueue])
async def test_queues(store: Store, kind: type[Queue] | type[PriorityQueue]) -> None:
    """Each item that was put is handed out once."""
    put: list[bytes] = []
    taken: list[bytes] = []

    async def produce() -> None:
        queue = kind(await store.session(), b"jobs")
        name = len(put)
        number = 0
        while not store.calm.is_set():
            item = b"%d.%d.%d" % (name, id(queue), number)
            put.append(item)
            await (queue.put(item) if isinstance(queue, Queue) else queue.put(item, random.randrange(3)))
            number += 1

    async def consume() -> None:
        queue = kind(await store.session(), b"jobs")
        while True:
            item = await queue.get()
            if item == b"end":
                return
            taken.append(item)

    async def end() -> None:
        await store.calm.wait()
        queue = kind(await store.session(), b"jobs")
        while await queue.size() > 0:
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        for _ in range(3):
            await (queue.put(b"end") if isinstance(queue, Queue) else queue.put(b"end", 9))

    await store.through(*[produce] * 3, *[consume] * 3, end)
    counts = collections.Counter(taken)
    assert counts == collections.Counter(put) and len(put) > 30


async def test_a_counter_of_50_tasks(store: Store) -> None:
    counters = [Counter(await store.session(), b"hits") for _ in range(5)]
    seen: list[int] = []

    async def work() -> None:
        for turn in range(1000):
            seen.append(await counters[turn % len(counters)].add())
            if store.calm.is_set():
                return

    await store.through(*[work] * 50)
    assert sorted(seen) == list(range(1, len(seen) + 1)) and len(seen) > 100
    assert await counters[0].value() == len(seen)


async def test_transfers(store: Store) -> None:
    """Money moves between accounts; each transfer that returned is in its own count, once."""
    accounts = [b"account/%d" % number for number in range(4)]
    client = await store.client()
    for account in accounts:
        await client.put(account, b"100")
    moved = collections.Counter[int]()

    async def work() -> None:
        session = await store.session()
        own = session.lease

        async def move(transaction: Transaction) -> None:
            source, target = random.sample(accounts, 2)
            left, right, count = [
                int(await transaction.get(key) or b"0") for key in (source, target, b"count/%x" % own)
            ]
            transaction.put(source, b"%d" % (left - 1))
            transaction.put(target, b"%d" % (right + 1))
            transaction.put(b"count/%x" % own, b"%d" % (count + 1))

        while not store.calm.is_set():
            await transact(session, move)
            moved[own] += 1

    await store.through(*[work] * 6)
    found = (await client.get(b"account/", range_end=prefix_end(b"account/"))).kvs
    assert sum(int(kv.value) for kv in found) == 400
    counts = (await client.get(b"count/", range_end=prefix_end(b"count/"))).kvs
    assert {int(kv.key[6:], 16): int(kv.value) for kv in counts} == moved and moved.total() > 10


async def test_barriers(store: Store) -> None:
    """A barrier holds throughout; rounds of a double barrier stay rounds."""
    gate_up = True
    inside = [0, 0, 0]
    rounds = 0

    async def hold() -> None:
        nonlocal gate_up
        client = await store.client()
        async with Barrier(client, b"gate"):
            held.set()
            await store.calm.wait()
            gate_up = False

    async def wait() -> None:
        await held.wait()
        await Barrier(await store.client(), b"gate").wait()
        assert not gate_up

    async def meet(number: int) -> None:
        nonlocal rounds
        session = await store.session()
        turn = 0
        ending = False
        while not ending:
            turn += 1
            inside[number] = turn
            async with DoubleBarrier(session, b"race/%d" % turn, 3):
                assert min(inside) >= turn
                # One decides for all whether there is another round: before the others can leave this one.
                if number == 0 and store.calm.is_set():
                    await patient(lambda: session.client.put(b"enough", b"%d" % turn))  # noqa: B023
            found = await patient(lambda: session.client.get(b"enough"))
            ending = bool(found.kvs)
        rounds = turn

    held = asyncio.Event()
    await store.through(hold, wait, wait, *[lambda number=number: meet(number) for number in range(3)])
    client = await store.client()
    assert await keys(client, b"gate") == [] and await keys(client, b"race") == [] and rounds > 1


async def test_a_cache(store: Store) -> None:
    """It ends up as the store, and never went back."""
    client = await store.client()
    revisions: list[int] = []

    async def write() -> None:
        writer = await store.client()
        while not store.calm.is_set():
            key = b"p/%d" % random.randrange(10)
            value = b"%d" % random.randrange(1000)
            wish = (lambda: writer.delete(key)) if random.random() < 0.3 else (lambda: writer.put(key, value))  # noqa: B023
            await patient(wish)

    async def follow() -> None:
        while not store.calm.is_set():
            await asyncio.sleep(0.01)
            revisions.append(cache.revision)

    async with WatchCache(await store.client(), b"p/") as cache:
        await store.through(write, write, follow)
        last = await client.put(b"p/last", b"")
        async with asyncio.timeout(PATIENCE_S):
            await cache.until(last.header.revision)
        found = (await client.get(b"p/", range_end=prefix_end(b"p/"))).kvs
        assert dict(cache) == {kv.key: kv for kv in found}
    assert revisions == sorted(revisions) and len(set(revisions)) > 10
