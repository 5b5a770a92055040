"""Queues: each item is put once and handed out once, in order, whatever gets lost; a cancelled take takes nothing."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from kvstore.client import Client
from kvstore.recipes import PriorityQueue, Queue, Session, SessionLost, UnreadableValue
from tests.unit.kvstore.recipes.conftest import PATIENCE_S, SHORT_TTL_S, Opener, keys, pauses
from tests.unit.kvstore.recipes.proxy import Proxy

RECEIPT = b"__jobs/receipts/"
"""What is in the requests that change a queue, and not in those that read."""


async def drained(queue: Queue | PriorityQueue) -> list[bytes]:
    """All that is in a queue, taken out."""
    return [await queue.get() for _ in range(await queue.size())]


async def test_first_in_first_out(client: Client, opened: Opener) -> None:
    put, taken = Queue(await opened(), b"jobs"), Queue(await opened(), b"jobs")
    for number in range(20):
        await put.put(b"%d" % number)
    assert await taken.size() == 20
    assert await drained(taken) == [b"%d" % number for number in range(20)]
    assert await keys(client, b"jobs") == []


async def test_another_queue_whose_name_begins_alike_is_left_alone(session: Session) -> None:
    short, long = Queue(session, b"jobs"), Queue(session, b"jobs2")
    await long.put(b"other")
    await short.put(b"own")
    assert await drained(short) == [b"own"] and await long.size() == 1


async def test_the_most_urgent_first_and_of_a_priority_the_oldest(opened: Opener) -> None:
    put, taken = PriorityQueue(await opened(), b"jobs"), PriorityQueue(await opened(), b"jobs")
    for value, priority in ((b"c1", 7), (b"a1", 0), (b"d", 65535), (b"c2", 7), (b"b", 2), (b"c3", 7), (b"a2", 0)):
        await put.put(value, priority)
    assert await drained(taken) == [b"a1", b"a2", b"b", b"c1", b"c2", b"c3", b"d"]
    for number in range(3):
        await put.put(b"%d" % number, 5)
    assert await taken.get() == b"0"
    await put.put(b"urgent", 0)
    assert await drained(taken) == [b"urgent", b"1", b"2"], "what came meanwhile and is more urgent is next"
    for wrong in (-1, 65536):
        with pytest.raises(ValueError, match="from 0 to 65535"):
            await put.put(b"", wrong)


async def test_priority_items_of_many_that_put_at_once_get_a_number_each(client: Client, opened: Opener) -> None:
    async def put(session: Session, name: int) -> None:
        queue = PriorityQueue(session, b"jobs")
        for number in range(10):
            await queue.put(b"%d.%d" % (name, number), 5)

    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        for name in range(4):
            tasks.create_task(put(await opened(), name))
    assert await keys(client, b"jobs/") == [b"jobs/00005/%016d" % number for number in range(40)]
    found = await drained(PriorityQueue(await opened(), b"jobs"))
    for name in range(4):
        assert [one for one in found if one.startswith(b"%d." % name)] == [b"%d.%d" % (name, at) for at in range(10)]


async def test_a_key_that_no_priority_queue_makes(client: Client, session: Session) -> None:
    await client.put(b"jobs/00005/x", b"")
    with pytest.raises(UnreadableValue, match="jobs/00005/x"):
        await PriorityQueue(session, b"jobs").put(b"", 5)


async def test_each_item_goes_to_one_of_many_that_wait(opened: Opener) -> None:
    found: Counter[bytes] = Counter()

    async def take(queue: Queue, count: int) -> None:
        for _ in range(count):
            found[await queue.get()] += 1

    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        for _ in range(4):
            queue = Queue(await opened(), b"jobs")
            for _ in range(3):
                tasks.create_task(take(queue, 5))
        await asyncio.sleep(0.1)
        put = Queue(await opened(), b"jobs")
        for number in range(60):
            tasks.create_task(put.put(b"%d" % number))
    assert found == Counter(b"%d" % number for number in range(60))


@pytest.mark.parametrize("kind", [Queue, PriorityQueue])
async def test_a_take_that_is_cancelled_at_any_step_takes_nothing(
    session: Session, kind: type[Queue] | type[PriorityQueue]
) -> None:
    queue = kind(session, b"jobs")
    finished = cancelled = 0
    for pause in pauses():
        if finished == 5:
            break
        value = b"%f" % pause
        await (queue.put(value) if isinstance(queue, Queue) else queue.put(value, 1))
        task = asyncio.create_task(queue.get())
        await asyncio.sleep(pause)
        task.cancel()
        try:
            assert await task == value
            finished += 1
        except asyncio.CancelledError:
            cancelled += 1
            assert await drained(queue) == [value], pause
        assert await queue.size() == 0
    assert cancelled > 0


async def test_waiting_for_an_item_ends_with_the_session(client: Client, opened: Opener) -> None:
    session = await opened(SHORT_TTL_S)
    waiting = asyncio.create_task(Queue(session, b"jobs").get())
    await asyncio.sleep(0.1)
    await client.lease_revoke(session.lease)
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(SessionLost):
            await waiting


@pytest.mark.parametrize("kind", [Queue, PriorityQueue])
async def test_a_put_whose_answer_is_lost_puts_once_though_the_item_is_taken_at_once(
    session: Session, wire: Proxy, wired: Session, kind: type[Queue] | type[PriorityQueue]
) -> None:
    wire.deafen(RECEIPT)
    queue, taken = kind(wired, b"jobs"), kind(session, b"jobs")
    putting = asyncio.create_task(queue.put(b"x") if isinstance(queue, Queue) else queue.put(b"x", 1))
    async with asyncio.timeout(PATIENCE_S):
        assert await taken.get() == b"x"
        wire.cut()
        await putting
    assert await taken.size() == 0


@pytest.mark.parametrize("kind", [Queue, PriorityQueue])
async def test_a_copy_of_a_put_that_comes_when_the_item_was_taken_puts_nothing(
    session: Session, wire: Proxy, wired: Session, kind: type[Queue] | type[PriorityQueue]
) -> None:
    queue, taken = kind(wired, b"jobs"), kind(session, b"jobs")
    wire.hold(RECEIPT)
    putting = asyncio.create_task(queue.put(b"x") if isinstance(queue, Queue) else queue.put(b"x", 1))
    await wire.holds(RECEIPT)
    wire.cut()
    async with asyncio.timeout(PATIENCE_S):
        await putting
        assert await taken.get() == b"x"
    await wire.deliver()
    assert await taken.size() == 0


async def test_a_take_whose_answer_is_lost_hands_out_what_it_took(
    client: Client, session: Session, wire: Proxy, wired: Session
) -> None:
    put, queue = Queue(session, b"jobs"), Queue(wired, b"jobs")
    taking = asyncio.create_task(queue.get())
    await asyncio.sleep(0.3)  # it waits for an item
    wire.deafen(RECEIPT)
    await put.put(b"x")
    await put.put(b"y")
    async with asyncio.timeout(PATIENCE_S):
        while await put.size() > 1:
            await asyncio.sleep(0.01)
        wire.cut()
        assert await taking == b"x"
        assert await queue.get() == b"y"
    assert await put.size() == 0
