"""Writes that happen once: bounded receipts, and honest words when a session ends before the store has answered."""

from __future__ import annotations

import asyncio

import pytest

from kvstore.client import Client
from kvstore.errors import StoreError
from kvstore.model import Compare, Op
from kvstore.recipes import Counter, InDoubt, Session, SessionLost
from kvstore.recipes.once import MAX_RECEIPTS
from tests.unit.kvstore.recipes.conftest import PATIENCE_S, SHORT_TTL_S, finished, keys
from tests.unit.kvstore.recipes.proxy import Proxy

RECEIPT = b"/receipts/"


async def test_receipts_are_used_again_and_go_with_the_session(client: Client) -> None:
    async with Session(client) as session:
        once = session.once(b"__place")

        async def write(number: int) -> None:
            outcome = await once.txn([], [Op.put(b"k/%d" % number)])
            assert outcome.succeeded

        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(write(number) for number in range(5 * MAX_RECEIPTS)))
        assert len(await keys(client, b"k/")) == 5 * MAX_RECEIPTS
        assert 0 < len(await keys(client, b"__place/receipts/")) <= MAX_RECEIPTS
        await write(0)
        await write(1)
        assert len(await keys(client, b"__place/receipts/")) <= MAX_RECEIPTS
    assert await keys(client, b"__place/") == []


async def test_either_branch_tells_how_it_went(client: Client, session: Session) -> None:
    once = session.once(b"__place")
    absent = Compare.create(b"k", "=", 0)
    for traced in (True, False):
        await client.delete(b"k")
        first = await once.txn([absent], [Op.put(b"k", b"1"), Op.get(b"k")], traced=traced)
        second = await once.txn([absent], [Op.put(b"k", b"2")], [Op.get(b"k"), Op.get(b"none")], traced=traced)
        assert first.succeeded and first.responses is not None and len(first.responses) == 2
        assert not second.succeeded and second.responses is not None and len(second.responses) == 2
        kv = (await client.get(b"k")).kvs[0]
        assert (kv.value, kv.mod_revision) == (b"1", first.revision)


async def test_what_the_store_refuses_is_raised_and_did_not_happen(client: Client, session: Session) -> None:
    once = session.once(b"__place")
    for traced in (True, False):
        with pytest.raises(StoreError, match="duplicate key"):
            await once.txn([], [Op.put(b"k", b"1"), Op.put(b"k", b"2")], traced=traced)
    assert await keys(client, b"k") == []


async def test_on_a_lease_that_ended_nothing_happens(client: Client, session: Session) -> None:
    counter = Counter(session, b"hits")
    await counter.add()
    await client.lease_revoke(session.lease)
    with pytest.raises(SessionLost):
        await counter.add()
    with pytest.raises(SessionLost):
        await Counter(session, b"other").add()
    assert (await client.get(b"hits")).kvs[0].value == b"1" and await keys(client, b"other") == []


async def test_a_session_that_ends_before_the_answer_leaves_a_doubt(client: Client, wire: Proxy) -> None:
    async with Client([wire.endpoint], timeout=1) as cut_off:
        session = Session(cut_off, ttl=SHORT_TTL_S)
        await session.open()
        counter = Counter(session, b"hits")
        await counter.value()
        wire.deafen(RECEIPT)
        adding = asyncio.create_task(counter.add())
        async with asyncio.timeout(PATIENCE_S):
            while not await keys(client, b"hits"):
                await asyncio.sleep(0.01)
            wire.cut()
            with pytest.raises(InDoubt, match="happened or not"):
                await adding
        wire.mend()
        await session.close()
    assert (await client.get(b"hits")).kvs[0].value == b"1"


async def test_what_is_cancelled_is_finished_and_its_receipt_used_again(client: Client, session: Session) -> None:
    counter = Counter(session, b"hits")
    await counter.add()
    for _ in range(20):
        adding = asyncio.create_task(counter.add())
        await asyncio.sleep(0.001)
        adding.cancel()
        await asyncio.gather(adding, return_exceptions=True)
        await finished(session)
    assert len(await keys(client, b"__hits/receipts/")) == 1


async def test_a_session_that_is_closed_under_a_write_says_that_it_is_in_doubt(
    client: Client, wire: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvstore.recipes.session.CLOSE_S", 0.3)
    async with Client([wire.endpoint], timeout=60) as cut_off:
        session = Session(cut_off, ttl=60)
        await session.open()
        counter = Counter(session, b"hits")
        await counter.value()
        wire.hold(RECEIPT)
        adding = asyncio.create_task(counter.add())
        await wire.holds(RECEIPT)
        async with asyncio.timeout(PATIENCE_S):
            await session.close()
            with pytest.raises(InDoubt, match="closed"):
                await adding
    await client.lease_revoke(session.lease)
