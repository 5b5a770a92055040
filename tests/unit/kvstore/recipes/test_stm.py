"""Transactions: sums stay, no update is lost, skew where the level allows it and nowhere else, commits happen once."""

from __future__ import annotations

import asyncio
import random

import pytest

from kvstore.client import Client
from kvstore.errors import StoreError
from kvstore.recipes import Conflict, Isolation, Session, Transaction, transact
from tests.unit.kvstore.recipes.conftest import PATIENCE_S, Opener, keys
from tests.unit.kvstore.recipes.proxy import Proxy

CHECKED = [Isolation.SERIALIZABLE_SNAPSHOT, Isolation.SERIALIZABLE, Isolation.REPEATABLE_READS]
SNAPSHOTS = CHECKED[:2]
ACCOUNTS, START = 6, 100
RECEIPT = b"__stm/receipts/"


def account(number: int) -> bytes:
    return b"account/%d" % number


async def balances(transaction: Transaction) -> list[int]:
    return [int(await transaction.get(account(number)) or b"0") for number in range(ACCOUNTS)]


@pytest.mark.parametrize("isolation", CHECKED)
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_concurrent_transfers_keep_the_sum(
    client: Client, opened: Opener, isolation: Isolation, seed: int
) -> None:
    """Of money that wanders at random, readers see all at every moment, and none is made or lost."""
    for number in range(ACCOUNTS):
        await client.put(account(number), b"%d" % START)
    done = moved = 0

    async def transfer(session: Session, chance: random.Random) -> None:
        nonlocal done, moved
        source, target = chance.sample(range(ACCOUNTS), 2)
        amount = chance.randint(1, START)

        async def move(transaction: Transaction) -> bool:
            left = int(await transaction.get(account(source)) or b"0") - amount
            if left < 0:
                return False
            transaction.put(account(source), b"%d" % left)
            transaction.put(account(target), b"%d" % (int(await transaction.get(account(target)) or b"0") + amount))
            return True

        moved += await transact(session, move, isolation=isolation)
        done += 1

    async def audit(session: Session) -> None:
        while done < 120:
            found = await transact(session, balances, isolation=isolation, prefetch=map(account, range(ACCOUNTS)))
            assert sum(found) == ACCOUNTS * START and min(found) >= 0, found

    async def work(session: Session, chance: random.Random) -> None:
        for _ in range(10):
            await transfer(session, chance)

    async with asyncio.timeout(3 * PATIENCE_S), asyncio.TaskGroup() as tasks:
        for number in range(12):
            tasks.create_task(work(await opened(), random.Random(f"{seed}/{number}")))
        tasks.create_task(audit(await opened()))
    assert moved > 0 and done == 120
    assert sum(await transact(await opened(), balances)) == ACCOUNTS * START


async def interleaved(opened: Opener, isolation: Isolation, reads: list[bytes]) -> list[int]:
    """Two doctors on call each go off if the other is on; both look before either commits. How often each was tried."""
    looked = [asyncio.Event(), asyncio.Event()]
    tries = [0, 0]

    async def go_off(session: Session, own: int) -> None:
        async def body(transaction: Transaction) -> None:
            tries[own] += 1
            on_call = [key for key in reads if await transaction.get(key) == b"on"]
            looked[own].set()
            await looked[1 - own].wait()
            if len(on_call) == 2:
                transaction.put(reads[own], b"off")

        await transact(session, body, isolation=isolation)

    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        for own in range(2):
            tasks.create_task(go_off(await opened(), own))
    return tries


@pytest.mark.parametrize("isolation", list(Isolation))
async def test_write_skew_is_prevented_unless_nothing_is_checked(
    client: Client, opened: Opener, isolation: Isolation
) -> None:
    doctors = [b"doctor/a", b"doctor/b"]
    for key in doctors:
        await client.put(key, b"on")
    tries = await interleaved(opened, isolation, doctors)
    on_call = [kv.key for kv in (await client.get(b"doctor/", range_end=b"doctor0")).kvs if kv.value == b"on"]
    if isolation is Isolation.READ_COMMITTED:
        assert on_call == [] and tries == [1, 1], "the test would see a skew"
    else:
        assert len(on_call) == 1 and sorted(tries) == [1, 2]


@pytest.mark.parametrize("isolation", list(Isolation))
async def test_what_is_written_unread_is_checked_from_snapshots_on(
    client: Client, session: Session, isolation: Isolation
) -> None:
    tries = 0

    async def body(transaction: Transaction) -> None:
        nonlocal tries
        tries += 1
        await transaction.get(b"read")
        if tries == 1:
            await client.put(b"written", b"theirs")
        transaction.put(b"written", b"ours")

    await transact(session, body, isolation=isolation)
    assert tries == (2 if isolation is Isolation.SERIALIZABLE_SNAPSHOT else 1)
    assert (await client.get(b"written")).kvs[0].value == b"ours"


@pytest.mark.parametrize("isolation", list(Isolation))
async def test_all_reads_of_a_snapshot_are_of_one_revision(
    client: Client, session: Session, isolation: Isolation
) -> None:
    await client.put(b"a", b"1")
    await client.put(b"b", b"1")
    seen: list[tuple[bytes | None, ...]] = []

    async def body(transaction: Transaction) -> None:
        first = await transaction.get(b"a")
        if not seen:
            await client.put(b"a", b"2")
            await client.put(b"b", b"2")
        seen.append((first, await transaction.get(b"b"), await transaction.get(b"a")))

    await transact(session, body, isolation=isolation)
    mixed = (b"1", b"2", b"1")
    expected = {
        Isolation.SERIALIZABLE_SNAPSHOT: [(b"1", b"1", b"1"), (b"2", b"2", b"2")],
        Isolation.SERIALIZABLE: [(b"1", b"1", b"1"), (b"2", b"2", b"2")],
        Isolation.REPEATABLE_READS: [mixed, (b"2", b"2", b"2")],
        Isolation.READ_COMMITTED: [mixed],
    }
    assert seen == expected[isolation]


@pytest.mark.parametrize("isolation", SNAPSHOTS)
async def test_a_snapshot_whose_history_is_compacted_is_taken_anew(
    client: Client, session: Session, isolation: Isolation
) -> None:
    seen: list[bytes] = []

    async def body(transaction: Transaction) -> None:
        await transaction.get(b"a")
        if not seen:
            seen.append(b"old")
            await client.compact((await client.put(b"b", b"2")).header.revision)
        seen.append(await transaction.get(b"b") or b"")

    await transact(session, body, isolation=isolation)
    assert seen == [b"old", b"2"]


async def test_a_transaction_sees_what_it_wrote_and_others_only_the_whole(client: Client, session: Session) -> None:
    await client.put(b"there", b"1")

    async def body(transaction: Transaction) -> list[bytes | None]:
        assert await transaction.revision(b"there") > 0 == await transaction.revision(b"nowhere")
        transaction.put(b"new", b"2")
        transaction.put(b"leased", b"3", lease=session.lease)
        transaction.delete(b"there")
        assert not await keys(client, b"new")
        return [await transaction.get(key) for key in (b"new", b"there", b"nowhere")]

    assert await transact(session, body) == [b"2", None, None]
    found = {kv.key: kv for kv in (await client.get(b"a", range_end=b"z")).kvs}
    assert set(found) == {b"new", b"leased"} and found[b"leased"].lease == session.lease
    assert found[b"new"].mod_revision == found[b"leased"].mod_revision


async def test_what_raises_writes_nothing(client: Client, session: Session) -> None:
    async def fails(transaction: Transaction) -> None:
        transaction.put(b"a", b"1")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await transact(session, fails)

    async def too_many(transaction: Transaction) -> None:
        for number in range(128):
            transaction.put(b"a%d" % number, b"")

    with pytest.raises(StoreError, match="too many operations"):
        await transact(session, too_many)
    assert await keys(client) == []


async def test_who_conflicts_each_time_gives_up_in_the_end(client: Client, session: Session) -> None:
    async def body(transaction: Transaction) -> None:
        await transaction.get(b"a")
        await client.put(b"a", b"theirs")
        transaction.put(b"a", b"ours")

    with pytest.raises(Conflict, match="3 times"):
        await transact(session, body, attempts=3)
    assert (await client.get(b"a")).kvs[0].value == b"theirs"


async def test_conflicts_cost_one_request_each(client: Client, session: Session) -> None:
    """The commit that fails brings what has to be read again."""
    tries = 0

    async def body(transaction: Transaction) -> None:
        nonlocal tries
        tries += 1
        values = [await transaction.get(key) for key in (b"a", b"b")]
        if tries <= 3:
            await client.put(b"a", b"%d" % tries)
            assert values == [b"%d" % (tries - 1) if tries > 1 else None, None]
        transaction.put(b"b", b"")

    client.requests.clear()
    await transact(session, body)
    assert tries == 4 and client.requests["txn"] == 4 * 2
    assert client.requests["range"] == 2 + 4 * (2 + 1), "two reads of its own, and those inside of the commits"


async def test_a_commit_whose_answer_is_lost_happens_once(
    client: Client, session: Session, wire: Proxy, wired: Session
) -> None:
    """Others change the key before it can look, so that the value does not tell."""
    tries = 0

    async def body(transaction: Transaction) -> None:
        nonlocal tries
        tries += 1
        transaction.put(b"n", b"%d" % (int(await transaction.get(b"n") or b"0") + 1))

    await transact(wired, body)
    wire.deafen(RECEIPT)
    committing = asyncio.create_task(transact(wired, body))
    async with asyncio.timeout(PATIENCE_S):
        while (await client.get(b"n")).kvs[0].value != b"2":
            await asyncio.sleep(0.01)
        await transact(session, body)
        wire.cut()
        await committing
    assert (await client.get(b"n")).kvs[0].value == b"3" and tries == 3


async def test_a_copy_of_a_commit_that_comes_late_changes_nothing(client: Client, wire: Proxy, wired: Session) -> None:
    """A write that reads nothing has no comparison of its own to protect it."""

    async def body(transaction: Transaction) -> None:
        transaction.put(b"blind", b"old")

    wire.hold(RECEIPT)
    committing = asyncio.create_task(transact(wired, body))
    await wire.holds(RECEIPT)
    wire.cut()
    async with asyncio.timeout(PATIENCE_S):
        await committing
    await client.put(b"blind", b"new")
    await wire.deliver()
    assert (await client.get(b"blind")).kvs[0].value == b"new"
