"""Barriers: nobody passes early, everybody passes, the last ones and the dead ones included."""

from __future__ import annotations

import asyncio

import pytest

from kvstore.client import Client
from kvstore.model import Op
from kvstore.recipes import Barrier, BarrierFull, BarrierHeld, DoubleBarrier, Session, SessionLost
from tests.unit.kvstore.recipes.conftest import PATIENCE_S, SHORT_TTL_S, Opener, keys, pauses
from tests.unit.kvstore.recipes.proxy import Proxy


async def test_a_barrier_holds_all_up_until_it_is_released(client: Client) -> None:
    barrier = Barrier(client, b"gate")
    async with asyncio.timeout(PATIENCE_S):
        await barrier.wait()  # it is not up
        async with barrier:
            with pytest.raises(BarrierHeld, match="gate"):
                await Barrier(client, b"gate").hold()
            waiting = [asyncio.create_task(Barrier(client, b"gate").wait()) for _ in range(5)]
            await asyncio.sleep(0.2)
            assert not any(task.done() for task in waiting)
        await asyncio.gather(*waiting)
    assert await keys(client) == []


async def test_who_waited_passes_though_the_barrier_is_up_again_at_once(client: Client) -> None:
    await client.put(b"gate", b"")
    own = client.sibling()
    waiting = asyncio.create_task(Barrier(own, b"gate").wait())
    async with asyncio.timeout(PATIENCE_S):
        while not own.requests["watch"]:  # from the revision on at which it has seen the barrier
            await asyncio.sleep(0.01)
    await client.delete(b"gate")
    await client.put(b"gate", b"")
    async with asyncio.timeout(PATIENCE_S):
        await waiting


async def test_a_hold_whose_answer_is_lost_holds(wired_client: Client, client: Client, wire: Proxy) -> None:
    barrier = Barrier(wired_client, b"gate")
    wire.deafen(b"gate")
    holding = asyncio.create_task(barrier.hold())
    async with asyncio.timeout(PATIENCE_S):
        while not await keys(client, b"gate"):
            await asyncio.sleep(0.01)
        wire.cut()
        await holding
        await barrier.release()
    assert await keys(client, b"gate") == []


async def test_a_copy_of_a_hold_that_comes_after_the_release_holds_nobody_up(
    wired_client: Client, client: Client, wire: Proxy
) -> None:
    barrier = Barrier(wired_client, b"gate")
    wire.hold(b"gate")
    holding = asyncio.create_task(barrier.hold())
    await wire.holds(b"gate")
    wire.cut()
    async with asyncio.timeout(PATIENCE_S):
        await holding
    await Barrier(client, b"gate").release()
    await wire.deliver()
    assert await keys(client, b"gate") == []


async def test_a_hold_that_is_cancelled_at_any_step_leaves_no_barrier(client: Client) -> None:
    finished = cancelled = 0
    for pause in pauses():
        if finished == 5:
            break
        task = asyncio.create_task(Barrier(client, b"gate").hold())
        await asyncio.sleep(pause)
        task.cancel()
        try:
            await task
            finished += 1
            await Barrier(client, b"gate").release()
        except asyncio.CancelledError:
            cancelled += 1
        assert await keys(client, b"gate") == [], pause
    assert cancelled > 0


async def test_all_begin_together_and_end_together(client: Client, opened: Opener) -> None:
    entered = left = 0

    async def work(session: Session, number: int) -> None:
        nonlocal entered, left
        await asyncio.sleep(number * 0.05)
        entered += 1
        async with DoubleBarrier(session, b"race", 4):
            assert entered == 4
            await asyncio.sleep(number * 0.05)
            left += 1
        assert left == 4

    for _ in range(2):
        entered = left = 0
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
            for number in range(4):
                tasks.create_task(work(await opened(), number))
        assert await keys(client) == [], "the last one out takes everything along"


async def test_one_too_many_is_refused_and_leaves_no_key(client: Client, opened: Opener) -> None:
    first, second, third = [DoubleBarrier(await opened(), b"race", 2) for _ in range(3)]
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(first.enter(), second.enter())
        with pytest.raises(BarrierFull, match="2 are inside"):
            await third.enter()
        assert len(await keys(client, b"race/waiters/")) == 2
        await asyncio.gather(first.leave(), second.leave())
    with pytest.raises(ValueError, match="1 or more"):
        DoubleBarrier(await opened(), b"race", 0)


async def test_of_many_that_enter_at_once_as_many_as_there_is_room_for_do(client: Client, opened: Opener) -> None:
    barriers = [DoubleBarrier(await opened(), b"race", 3) for _ in range(6)]
    async with asyncio.timeout(PATIENCE_S):
        done = await asyncio.gather(*(one.enter() for one in barriers), return_exceptions=True)
        assert sorted(str(type(one).__name__) for one in done) == ["BarrierFull"] * 3 + ["NoneType"] * 3
        inside = [one for one, result in zip(barriers, done, strict=True) if result is None]
        assert len(await keys(client, b"race/waiters/")) == 3
        await asyncio.gather(*(one.leave() for one in inside))
    assert await keys(client, b"race") == []


async def test_an_enter_that_is_cancelled_leaves_no_key_and_is_not_counted(client: Client, opened: Opener) -> None:
    giving_up = asyncio.create_task(DoubleBarrier(await opened(), b"race", 2).enter())
    await _inside(client, 1)
    giving_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await giving_up
    assert await keys(client, b"race") == []
    first, second = [DoubleBarrier(await opened(), b"race", 2) for _ in range(2)]
    entering = asyncio.create_task(first.enter())
    await asyncio.sleep(0.2)
    assert not entering.done()
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(entering, second.enter())


async def _inside(client: Client, count: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while len(await keys(client, b"race/waiters/")) != count:
            await asyncio.sleep(0.01)


async def test_one_that_dies_or_fails_inside_does_not_hold_the_others(client: Client, opened: Opener) -> None:
    """The first to enter is whom the others wait for: let that one die."""
    dying, failing, living = await opened(SHORT_TTL_S), await opened(), await opened()

    async def die() -> None:
        async with DoubleBarrier(dying, b"race", 3):
            await asyncio.sleep(PATIENCE_S * 2)

    async def fail() -> None:
        async with DoubleBarrier(failing, b"race", 3):
            raise ZeroDivisionError

    async def live() -> None:
        async with DoubleBarrier(living, b"race", 3):
            pass

    first = asyncio.create_task(die())
    await _inside(client, 1)
    second = asyncio.create_task(fail())
    await _inside(client, 2)
    third = asyncio.create_task(live())
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(ZeroDivisionError):
            await second
        await asyncio.sleep(0.2)
        assert not third.done()
        await client.lease_revoke(dying.lease)
        await third
        with pytest.raises(SessionLost):
            await first
    assert await keys(client, b"race/waiters/") == []


async def test_a_copy_of_an_enter_that_comes_late_is_not_counted(
    client: Client, wire: Proxy, wired: Session, session: Session
) -> None:
    barrier = DoubleBarrier(wired, b"race", 1)
    wire.hold(b"race/waiters/1")
    entering = asyncio.create_task(barrier.enter())
    await wire.holds(b"race/waiters/1")
    wire.cut()
    async with asyncio.timeout(PATIENCE_S):
        await entering
        await barrier.leave()
    await wire.deliver()
    assert await keys(client, b"race") == []
    alone = DoubleBarrier(session, b"race", 1)
    async with asyncio.timeout(PATIENCE_S), alone:
        pass


async def test_an_opening_whose_answer_is_lost_opens(
    client: Client, wire: Proxy, wired: Session, session: Session
) -> None:
    first, last = DoubleBarrier(session, b"race", 2), DoubleBarrier(wired, b"race", 2)
    entering = asyncio.create_task(first.enter())
    await _inside(client, 1)
    wire.deafen(b"race/ready")
    opening = asyncio.create_task(last.enter())
    async with asyncio.timeout(PATIENCE_S):
        await entering
        wire.cut()
        await opening
        await asyncio.gather(first.leave(), last.leave())
    assert await keys(client, b"race") == []


async def test_a_barrier_of_an_earlier_round_opens_nothing(client: Client, opened: Opener) -> None:
    """Left behind by one that died while it was the last to leave."""
    await client.txn([], [Op.put(b"race/ready")])
    first, second = [DoubleBarrier(await opened(), b"race", 2) for _ in range(2)]
    entering = asyncio.create_task(first.enter())
    await asyncio.sleep(0.2)
    assert not entering.done()
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(entering, second.enter())
        await asyncio.gather(first.leave(), second.leave())
    assert await keys(client, b"race") == []
