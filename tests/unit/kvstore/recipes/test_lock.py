"""Lock: one holds at a time, in the order of coming, whatever gets lost; tokens grow; who leaves leaves nothing."""

from __future__ import annotations

import asyncio

import pytest

from kvstore.client import Client
from kvstore.model import Compare, Op
from kvstore.recipes import Lock, Session, SessionLost
from kvstore.recipes.session import CLEAN_UP_S
from tests.unit.kvstore.recipes.conftest import PATIENCE_S, SHORT_TTL_S, Opener, keys, pauses
from tests.unit.kvstore.recipes.proxy import Proxy


async def queued(client: Client, count: int, name: bytes = b"mutex") -> None:
    """Wait until so many stand in the queue."""
    async with asyncio.timeout(PATIENCE_S):
        while len(await keys(client, name + b"/")) != count:
            await asyncio.sleep(0.01)


async def test_one_holds_at_a_time_and_each_later_one_has_a_greater_token(client: Client, opened: Opener) -> None:
    inside, tokens = 0, []

    async def work(number: int) -> None:
        nonlocal inside
        async with Lock(await opened(), b"mutex") as lock:
            inside += 1
            assert inside == 1
            assert (await client.txn([lock.fence], [Op.put(b"held", b"%d" % number)])).succeeded
            tokens.append(lock.token)
            inside -= 1

    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        for number in range(8):
            tasks.create_task(work(number))
    assert len(tokens) == 8 and tokens == sorted(set(tokens))
    assert await keys(client, b"mutex/") == []
    assert await keys(client, b"__mutex") == [], "no receipt is needed while no answer is lost"


async def test_tasks_of_one_session_take_turns(client: Client, session: Session) -> None:
    inside = 0

    async def work() -> None:
        nonlocal inside
        async with Lock(session, b"mutex"):
            inside += 1
            assert inside == 1
            await client.get(b"somewhere else")
            inside -= 1

    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(work())


async def test_a_release_wakes_only_the_next(client: Client, session: Session) -> None:
    """Each waits for its predecessor alone: after a release one waiter asks the store anything."""
    first = Lock(session, b"mutex")
    await first.acquire()
    waiters = []
    for number in range(5):
        own = client.sibling()
        again = Session(own, ttl=60)
        await again.open()
        waiters.append((own, again, asyncio.create_task(Lock(again, b"mutex").acquire())))
        await queued(client, number + 2)
    before: list[int] = []
    async with asyncio.timeout(PATIENCE_S):
        while before != (now := [own.requests["range"] for own, _, _ in waiters]):
            before = now  # they may still be about to wait
            await asyncio.sleep(0.3)
    await first.release()
    async with asyncio.timeout(PATIENCE_S):
        await waiters[0][2]
    await asyncio.sleep(0.2)
    asked = [own.requests["range"] - had for (own, _, _), had in zip(waiters, before, strict=True)]
    assert asked[0] > 0 and asked[1:] == [0, 0, 0, 0]
    for _, again, task in waiters:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await again.close()


async def test_a_waiter_whose_predecessor_gives_up_goes_on_waiting(client: Client, opened: Opener) -> None:
    first, second, third = [Lock(await opened(), b"mutex") for _ in range(3)]
    await first.acquire()
    giving_up = asyncio.create_task(second.acquire())
    await queued(client, 2)
    waiting = asyncio.create_task(third.acquire())
    await queued(client, 3)
    giving_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await giving_up
    assert len(await keys(client, b"mutex/")) == 2, "a cancelled acquire leaves no key behind"
    await asyncio.sleep(0.2)
    assert not waiting.done()
    await first.release()
    async with asyncio.timeout(PATIENCE_S):
        await waiting


async def test_cancelled_at_any_step_an_acquire_leaves_no_key(client: Client, session: Session) -> None:
    """Stop it after no time, a little more each time, until it is done by then."""
    finished = cancelled = 0
    for pause in pauses():
        if finished == 5:
            break
        lock = Lock(session, b"mutex")
        task = asyncio.create_task(lock.acquire())
        await asyncio.sleep(pause)
        task.cancel()
        try:
            await task
            finished += 1
            await lock.release()
        except asyncio.CancelledError:
            cancelled += 1
        assert await keys(client, b"mutex/") == [], pause
    assert cancelled > 0
    async with asyncio.timeout(PATIENCE_S), Lock(session, b"mutex"):
        pass


async def test_a_body_that_raises_leaves_no_key(client: Client, session: Session) -> None:
    with pytest.raises(ZeroDivisionError):
        async with Lock(session, b"mutex"):
            raise ZeroDivisionError
    assert await keys(client, b"mutex/") == []


async def test_try_acquire(client: Client, opened: Opener) -> None:
    first, second = [Lock(await opened(), b"mutex") for _ in range(2)]
    assert await first.try_acquire()
    assert not await second.try_acquire() and second.token == 0
    assert await keys(client, b"mutex/") == [first.key]
    await first.release()
    assert await second.try_acquire()


async def test_a_lost_session_interrupts_the_body_and_its_writes_are_fenced(client: Client, opened: Opener) -> None:
    session, other = await opened(SHORT_TTL_S), await opened()
    interrupted = asyncio.Event()

    async def hold() -> Compare:
        lock = Lock(session, b"mutex")
        fence = lock.fence
        try:
            async with lock:
                fence = lock.fence
                assert (await client.txn([fence], [Op.put(b"work", b"mine")])).succeeded
                await asyncio.sleep(PATIENCE_S * 2)
        except SessionLost:
            interrupted.set()
        return fence

    holding = asyncio.create_task(hold())
    await queued(client, 1)
    waiting = asyncio.create_task(Lock(other, b"mutex").acquire())
    await queued(client, 2)
    await client.lease_revoke(session.lease)
    async with asyncio.timeout(PATIENCE_S):
        await waiting
        fence = await holding
    assert interrupted.is_set() and session.lost.is_set() and not session.alive
    assert not (await client.txn([fence], [Op.put(b"work", b"old")])).succeeded
    with pytest.raises(SessionLost):
        await Lock(session, b"mutex").acquire()


async def test_a_waiter_whose_key_is_deleted_does_not_hold(client: Client, opened: Opener) -> None:
    first, second = Lock(await opened(), b"mutex"), Lock(await opened(), b"mutex")
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await queued(client, 2)
    await client.delete(second.key)
    await first.release()
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(SessionLost, match="was deleted"):
            await waiting


async def test_an_acquire_whose_answer_is_lost_holds_once(client: Client, wire: Proxy, wired: Session) -> None:
    lock = Lock(wired, b"mutex")
    wire.deafen()
    acquiring = asyncio.create_task(lock.acquire())
    await queued(client, 1)
    wire.cut()
    async with asyncio.timeout(PATIENCE_S):
        await acquiring
    held = (await client.get(lock.key)).kvs[0]
    assert lock.token == held.create_revision and held.version == 1
    await lock.release()
    assert await keys(client, b"mutex/") == []


async def test_a_copy_of_an_acquire_that_comes_after_the_release_takes_nothing(
    client: Client, wire: Proxy, wired: Session, opened: Opener
) -> None:
    lock = Lock(wired, b"mutex")
    wire.hold()
    acquiring = asyncio.create_task(lock.acquire())
    await wire.holds(b"mutex/")
    wire.cut()
    async with asyncio.timeout(PATIENCE_S):
        await acquiring
    await lock.release()
    await wire.deliver()
    assert await keys(client, b"mutex/") == []
    async with asyncio.timeout(PATIENCE_S), Lock(await opened(), b"mutex"):
        pass


async def test_an_acquire_that_is_cancelled_in_doubt_leaves_no_key(client: Client, wire: Proxy, wired: Session) -> None:
    wire.hold()
    acquiring = asyncio.create_task(Lock(wired, b"mutex").acquire())
    await wire.holds(b"mutex/")
    acquiring.cancel()
    wire.cut()
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(acquiring, return_exceptions=True)
        await wired.settled(b"mutex/%x" % wired.lease)
    await wire.deliver()
    assert await keys(client, b"mutex/") == []


async def test_a_key_that_could_not_be_taken_away_goes_once_the_store_is_back(
    client: Client, wire: Proxy, session: Session
) -> None:
    """A cancelled acquire ends soon though nobody answers; the session cleans up behind it."""
    async with (
        Client([wire.endpoint], timeout=1) as cut_off,
        Session(cut_off, ttl=60) as far,
        Lock(session, b"mutex"),
    ):
        waiting = asyncio.create_task(Lock(far, b"mutex").acquire())
        await queued(client, 2)
        wire.cut()
        waiting.cancel()
        async with asyncio.timeout(10 * CLEAN_UP_S):
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert len(await keys(client, b"mutex/")) == 2
        wire.mend()
        await queued(client, 1)
        assert far.alive


async def test_who_locks_again_after_a_release_that_took_long_holds(client: Client, wire: Proxy) -> None:
    """The late deletion is of the old key, and does not free the new hold."""
    async with Client([wire.endpoint], timeout=1) as cut_off, Session(cut_off, ttl=60) as far:
        lock = Lock(far, b"mutex")
        await lock.acquire()
        first = lock.token
        wire.cut()
        await lock.release()
        again = asyncio.create_task(Lock(far, b"mutex").acquire())
        await asyncio.sleep(0.5)
        assert not again.done()
        wire.mend()
        async with asyncio.timeout(PATIENCE_S):
            await again
        await asyncio.sleep(0.3)
        held = (await client.get(b"mutex/%x" % far.lease)).kvs
        assert len(held) == 1 and held[0].create_revision > first
