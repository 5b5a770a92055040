"""Session: it keeps its lease, says in time when it may have ended, and interrupts what relied on it."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from kvstore.client import Client
from kvstore.errors import LeaseNotFound
from kvstore.recipes import Lock, Session, SessionLost
from tests.unit.kvstore.members import Cluster
from tests.unit.kvstore.recipes.conftest import PATIENCE_S, SHORT_TTL_S, TTL_S, keys
from tests.unit.kvstore.recipes.proxy import Proxy

TRIES = 3


async def outlived(client: Client) -> Session:
    """A session that is older than its TTL, with a key; tried again where a busy machine let it end."""
    for _ in range(TRIES):
        session = Session(client, ttl=SHORT_TTL_S)
        await session.open()
        with contextlib.suppress(LeaseNotFound):
            await client.put(b"here", b"", lease=session.lease)
            await asyncio.sleep(SHORT_TTL_S + 1.5)
        if session.alive and await keys(client, b"here"):
            return session
        await session.close()
    raise AssertionError(f"it ended with its TTL, {TRIES} times")


async def test_a_session_outlives_its_ttl_and_ends_with_its_keys(client: Client) -> None:
    session = await outlived(client)
    session.check()
    await session.close()
    assert session.lost.is_set() and not session.alive and await keys(client) == []
    with pytest.raises(LeaseNotFound):
        await client.lease_keepalive(session.lease)
    with pytest.raises(SessionLost, match="is closed"):
        session.check()


async def test_a_session_that_is_not_open_has_no_lease(client: Client) -> None:
    with pytest.raises(SessionLost, match="not open"):
        _ = Session(client).lease
    with pytest.raises(SessionLost, match="has ended"):
        await Session(client, lease=12345).open()


async def test_a_revoked_lease_is_noticed_and_says_so(client: Client) -> None:
    async with Session(client, ttl=SHORT_TTL_S) as session:
        await client.lease_revoke(session.lease)
        async with asyncio.timeout(PATIENCE_S):
            await session.lost.wait()
        with pytest.raises(SessionLost, match="has expired or was revoked"):
            async with session.guarded():
                pass


async def test_a_guarded_body_tells_its_own_cancellation_from_a_loss(client: Client) -> None:
    async with Session(client, ttl=SHORT_TTL_S) as session:

        async def body() -> None:
            async with session.guarded():
                await asyncio.sleep(PATIENCE_S)

        cancelled = asyncio.create_task(body())
        await asyncio.sleep(0.05)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        lost = asyncio.create_task(body())
        await asyncio.sleep(0.05)
        await client.lease_revoke(session.lease)
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(SessionLost):
                await lost
        assert lost.cancelling() == 0


async def test_two_guards_of_one_task_end_in_one_error(client: Client) -> None:
    async with Session(client, ttl=SHORT_TTL_S) as session:

        async def body() -> None:
            async with Lock(session, b"outer"), Lock(session, b"inner"):
                await client.lease_revoke(session.lease)
                await asyncio.sleep(PATIENCE_S)

        task = asyncio.create_task(body())
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(SessionLost):
                await task
        assert task.cancelling() == 0


async def test_a_client_that_is_cut_off_knows_that_its_lease_ended_before_another_one_holds(
    cluster: Cluster, client: Client, wire: Proxy
) -> None:
    """Nobody tells it: it goes by its own clock, and that is never behind the store's."""
    begun = time.monotonic()
    async with Client([wire.endpoint], timeout=1) as cut_off, Session(client, ttl=TTL_S) as other:
        session = Session(cut_off, ttl=SHORT_TTL_S)
        await session.open()
        try:
            left = 0.0

            async def hold() -> None:
                nonlocal left
                try:
                    async with Lock(session, b"mutex"):
                        await asyncio.sleep(PATIENCE_S)
                finally:
                    left = time.monotonic()

            holding = asyncio.create_task(hold())
            while not await keys(client, b"mutex/"):
                await asyncio.sleep(0.01)
            wire.cut()
            lock = Lock(other, b"mutex")
            async with asyncio.timeout(PATIENCE_S):
                await lock.acquire()
                held = time.monotonic()
                with pytest.raises(SessionLost, match="was not renewed"):
                    await holding
            assert begun < left <= held
            assert session.lost.is_set()
        finally:
            wire.mend()
            await session.close()


async def test_a_cut_that_is_shorter_than_the_ttl_loses_nothing(cluster: Cluster, client: Client, wire: Proxy) -> None:
    ttl = 6
    async with Client([wire.endpoint], timeout=1) as cut_off, Session(cut_off, ttl=ttl) as session:
        async with Lock(session, b"mutex") as lock:
            token = lock.token
            wire.cut()
            await asyncio.sleep(2.5)  # over its first renewal
            wire.mend()
            await asyncio.sleep(ttl - 2)
            assert session.alive
            assert (await cut_off.get(lock.key)).kvs[0].create_revision == token
        assert await keys(client, b"mutex/") == []


async def test_a_grant_whose_answer_is_lost_leaves_one_lease(
    cluster: Cluster, client: Client, wire: Proxy, wired_client: Client
) -> None:
    before = set((await client.lease_list()).ids)
    await wired_client.get(b"warm")
    wire.deafen()
    opening = asyncio.create_task(_opened(wired_client))
    async with asyncio.timeout(PATIENCE_S):
        while len(set((await client.lease_list()).ids) - before) != 1:
            await asyncio.sleep(0.01)
        wire.cut()
        session = await opening
    assert set((await client.lease_list()).ids) - before == {session.lease}
    await session.close()
    assert set((await client.lease_list()).ids) == before


async def _opened(client: Client) -> Session:
    session = Session(client, ttl=TTL_S)
    await session.open()
    return session
