"""Counter: exact with many tasks and processes, whatever gets lost."""

from __future__ import annotations

import asyncio

import pytest

from kvstore.client import Client
from kvstore.recipes import Counter, Session, UnreadableValue
from tests.unit.kvstore.recipes.conftest import PATIENCE_S, Opener, finished, pauses
from tests.unit.kvstore.recipes.proxy import Proxy

RECEIPT = b"__hits/receipts/"


async def test_50_tasks_on_several_sessions_count_exactly(client: Client, opened: Opener) -> None:
    seen: list[int] = []

    async def work(counter: Counter) -> None:
        for _ in range(4):
            seen.append(await counter.add())

    async with asyncio.timeout(3 * PATIENCE_S), asyncio.TaskGroup() as tasks:
        for _ in range(5):
            counter = Counter(await opened(), b"hits")
            for _ in range(10):
                tasks.create_task(work(counter))
    assert sorted(seen) == list(range(1, 201)), "no two adds return the same"
    assert (await client.get(b"hits")).kvs[0].value == b"200"


async def test_any_amount(client: Client, session: Session) -> None:
    counter = Counter(session, b"hits")
    assert await counter.value() == 0
    assert [await counter.add(amount) for amount in (5, -7, 0, 10**18)] == [5, -2, -2, 10**18 - 2]
    await client.put(b"hits", b"40")
    assert await counter.add(2) == 42 and await counter.value() == 42
    await client.delete(b"hits")
    assert await counter.add() == 1


async def test_what_is_no_number_is_left_alone(client: Client, session: Session) -> None:
    await client.put(b"hits", b"many")
    with pytest.raises(UnreadableValue, match="'many', which is no number"):
        await Counter(session, b"hits").add()
    assert (await client.get(b"hits")).kvs[0].value == b"many"


async def test_an_add_whose_answer_is_lost_counts_once(
    client: Client, session: Session, wire: Proxy, wired: Session
) -> None:
    """Also when others have added since, so that the number does not tell."""
    counter, other = Counter(wired, b"hits"), Counter(session, b"hits")
    await counter.add(10)
    wire.deafen(RECEIPT)
    adding = asyncio.create_task(counter.add())
    async with asyncio.timeout(PATIENCE_S):
        while await other.value() == 10:
            await asyncio.sleep(0.01)
        assert await other.add() == 12
        wire.cut()
        assert await adding == 11
    assert await other.add() == 13


async def test_a_copy_of_an_add_that_comes_late_counts_nothing(
    client: Client, session: Session, wire: Proxy, wired: Session
) -> None:
    """Nor when the number is then what it was, and the key was made anew."""
    counter = Counter(wired, b"hits")
    wire.hold(RECEIPT)
    adding = asyncio.create_task(counter.add())
    await wire.holds(RECEIPT)
    wire.cut()
    async with asyncio.timeout(PATIENCE_S):
        assert await adding == 1
    await client.delete(b"hits")
    await wire.deliver()
    assert await Counter(session, b"hits").value() == 0


async def test_a_cancelled_add_counts_once_or_not_at_all(session: Session) -> None:
    counter = Counter(session, b"hits")
    done_in_time = before = 0
    for pause in pauses():
        task = asyncio.create_task(counter.add())
        await asyncio.sleep(pause)
        task.cancel()
        done = (await asyncio.gather(task, return_exceptions=True))[0]
        await finished(session)
        now = await counter.value()
        if isinstance(done, int):
            done_in_time += 1
            assert done == now == before + 1
        assert now - before in (0, 1)
        before = now
        if done_in_time == 5:
            break
    assert await counter.add() == before + 1
