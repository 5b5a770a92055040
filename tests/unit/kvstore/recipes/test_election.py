"""Election: one leads, the next follows, proclamations and observers see it in order, the fence holds."""

from __future__ import annotations

import asyncio

import pytest

from kvstore.client import Client
from kvstore.model import Op
from kvstore.recipes import Election, NotLeader, Session, SessionLost
from tests.unit.kvstore.recipes.conftest import PATIENCE_S, SHORT_TTL_S, Opener, keys
from tests.unit.kvstore.recipes.proxy import Proxy


async def queued(client: Client, count: int) -> None:
    """Wait until so many stand for election."""
    async with asyncio.timeout(PATIENCE_S):
        while len(await keys(client, b"lead/")) != count:
            await asyncio.sleep(0.01)


async def test_one_leads_and_the_next_in_the_queue_follows(client: Client, opened: Opener) -> None:
    first, second, third = [Election(await opened(), b"lead") for _ in range(3)]
    await first.campaign(b"1")
    waiting = []
    for number, one in enumerate((second, third)):
        waiting.append(asyncio.create_task(one.campaign(b"%d" % (number + 2))))
        await queued(client, number + 2)
    async with asyncio.timeout(PATIENCE_S):
        assert (leader := await first.leader()) is not None and leader.value == b"1"
        await first.proclaim(b"still 1")
        assert (leader := await third.leader()) is not None and leader.value == b"still 1"
        assert not any(task.done() for task in waiting) and second.term == 0
        await first.resign()
        await waiting[0]
        assert not waiting[1].done() and second.term > 0
        await second.resign()
        await waiting[1]
        await third.resign()
    assert await first.leader() is None


async def test_the_lead_ends_with_the_lease_and_its_writes_are_fenced(client: Client, opened: Opener) -> None:
    session = await opened(SHORT_TTL_S)
    first, second = Election(session, b"lead"), Election(await opened(), b"lead")
    await first.campaign(b"1")
    term = first.term
    assert (await client.txn([first.fence], [Op.put(b"work", b"1")])).succeeded
    waiting = asyncio.create_task(second.campaign(b"2"))
    await queued(client, 2)
    await client.lease_revoke(session.lease)
    async with asyncio.timeout(PATIENCE_S):
        await waiting
        await session.lost.wait()
    assert second.term > term
    assert not (await client.txn([first.fence], [Op.put(b"work", b"old")])).succeeded
    with pytest.raises((NotLeader, SessionLost)):
        await first.proclaim(b"old")
    await first.resign()  # of a lead that is lost: the successor's stays
    assert (leader := await second.leader()) is not None and leader.value == b"2"


async def test_who_was_deposed_by_hand_can_not_proclaim(client: Client, session: Session) -> None:
    election = Election(session, b"lead")
    with pytest.raises(NotLeader):
        await election.proclaim(b"never elected")
    await election.campaign(b"1")
    await client.delete(election.key)
    with pytest.raises(NotLeader):
        await election.proclaim(b"2")
    assert await election.leader() is None and election.term == 0


async def test_who_gives_up_waiting_leaves_the_queue(client: Client, opened: Opener) -> None:
    first, second, third = [Election(await opened(), b"lead") for _ in range(3)]
    await first.campaign(b"1")
    giving_up = asyncio.create_task(second.campaign(b"2"))
    await queued(client, 2)
    waiting = asyncio.create_task(third.campaign(b"3"))
    await queued(client, 3)
    giving_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await giving_up
    assert len(await keys(client, b"lead/")) == 2
    await first.resign()
    async with asyncio.timeout(PATIENCE_S):
        await waiting


async def test_who_campaigns_again_on_its_lease_keeps_its_place(client: Client, opened: Opener) -> None:
    """A program that was started again takes its lease over, and leads on."""
    crashed = await opened()
    first = Election(crashed, b"lead")
    await first.campaign(b"1")
    waiting = asyncio.create_task(Election(await opened(), b"lead").campaign(b"2"))
    await queued(client, 2)
    await crashed.orphan()
    async with asyncio.timeout(PATIENCE_S), Session(client, lease=crashed.lease) as resumed:
        again = Election(resumed, b"lead")
        await again.campaign(b"again")
        assert again.term == first.term
        assert (leader := await again.leader()) is not None and leader.value == b"again"
        assert not waiting.done()
    async with asyncio.timeout(PATIENCE_S):
        await waiting


async def test_an_observer_sees_each_leader_in_order(client: Client, opened: Opener) -> None:
    first, second = [Election(await opened(), b"lead") for _ in range(2)]
    watcher = Election(await opened(), b"lead")
    seen: list[bytes] = []

    async def observe() -> None:
        async for leader in watcher.observe():
            seen.append(leader.value)

    async def shown(*values: bytes) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while seen != list(values):
                await asyncio.sleep(0.01)

    observing = asyncio.create_task(observe())
    try:
        await first.campaign(b"1")
        await shown(b"1")
        waiting = asyncio.create_task(second.campaign(b"2"))
        await queued(client, 2)
        await first.proclaim(b"still 1")
        await shown(b"1", b"still 1")
        await first.resign()
        await waiting
        await shown(b"1", b"still 1", b"2")
        await second.resign()
        await first.campaign(b"1 again")
        await shown(b"1", b"still 1", b"2", b"1 again")
    finally:
        observing.cancel()


async def test_a_copy_of_a_campaign_that_comes_after_the_resignation_leads_nobody(
    client: Client, wire: Proxy, wired: Session
) -> None:
    election = Election(wired, b"lead")
    wire.hold()
    campaigning = asyncio.create_task(election.campaign(b"1"))
    await wire.holds(b"lead/")
    wire.cut()
    async with asyncio.timeout(PATIENCE_S):
        await campaigning
    await election.resign()
    await wire.deliver()
    assert await election.leader() is None


async def test_a_proclamation_whose_answer_is_lost(client: Client, wire: Proxy, wired: Session) -> None:
    election = Election(wired, b"lead")
    await election.campaign(b"1")
    wire.deafen()
    proclaiming = asyncio.create_task(election.proclaim(b"2"))
    async with asyncio.timeout(PATIENCE_S):
        while (await client.get(election.key)).kvs[0].value != b"2":
            await asyncio.sleep(0.01)
        wire.cut()
        await proclaiming
        await election.proclaim(b"3")
    assert (leader := await election.leader()) is not None and leader.value == b"3"
