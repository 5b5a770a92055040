"""Members whose disk fails, is full or slow: none acknowledges what it has not synced, and all come back."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from pathlib import Path

import pytest

from kvstore.client import Client
from kvstore.errors import NoSpace, StoreError
from tests import power
from tests.conformance.members import Member, until
from tests.disk.mounted import missing

WORK_S = 0.4
LONG_S = 120.0
VALUE = b"v" * (64 << 10)
IN_DOUBT = power.PREFIX + b"in doubt"
TRIES = 4
MANY = 400
"""Values of 64 KiB: more than the log has laid ahead for, and than the disk has in reserve."""

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


def ended_with_an_error(member: Member) -> None:
    """Wait until it has ended by itself, for the reason that its disk gave."""
    process = member.process
    assert process is not None
    until(f"end of {member.name}", lambda: process.poll() is not None)
    said = member.log.read_text().splitlines()
    assert process.returncode == 1 and "Input/output error" in said[-1], (process.returncode, said[-3:])
    member.process = None


async def put_until_refused(client: Client) -> None:
    """Put values until the member has no room; those that nobody answered are none of this test's."""
    for at in range(MANY):
        with contextlib.suppress(StoreError):
            try:
                await client.put(f"big/{at}".encode(), VALUE)
            except NoSpace:
                return
    raise AssertionError("nothing was refused")


async def put_when_taken(client: Client, seconds: float = 60.0) -> None:
    """Put a key again and again until there is room."""
    async with asyncio.timeout(seconds):
        while True:
            with contextlib.suppress(StoreError):
                await client.put(b"again", b"1")
                return
            await asyncio.sleep(0.1)


async def test_what_is_read_after_a_failed_sync_is_there_after_a_loss_of_power(tmp_path: Path) -> None:
    """The system still has the bytes that did not reach the disk, and shows them to the member when it starts again."""
    with power.cluster(tmp_path, 1, count=1) as one:
        member, disk = one.by_name("m0"), one.disks["m0"]
        await one.write(["m0"], WORK_S)
        disk.fail("sync", "EIO")
        async with Client([member.client_url], timeout=power.TIMEOUT_S) as client:
            with pytest.raises(StoreError):
                await client.put(IN_DOUBT, b"v")
        ended_with_an_error(member)
        disk.fail("sync", "none")
        one.start(["m0"])
        async with Client([member.client_url], timeout=power.READ_S) as client:
            seen = (await client.get(IN_DOUBT)).kvs
        if seen:
            one.promised[IN_DOUBT] = b"v"
        await one.write(["m0"], WORK_S)
        member.stop(signal.SIGKILL)
        disk.lose("all", 1)
        one.start(["m0"])
        assert not await one.missing(["m0"])


async def test_a_leader_whose_sync_fails_acknowledges_nothing_more_and_comes_back(tmp_path: Path) -> None:
    with power.cluster(tmp_path, 2) as one:
        leader = one.members.leader().name
        away, beside = (member.name for member in one.members.members if member.name != leader)
        one.by_name(away).stop(signal.SIGKILL)
        writing = asyncio.create_task(one.write([leader, beside], LONG_S))
        await one.acknowledged_more(WORK_S)
        one.disks[leader].fail("sync", "EIO")
        await asyncio.to_thread(ended_with_an_error, one.by_name(leader))
        # What was acknowledged since the first kill is at this one, which goes, and at the leader, or nowhere.
        one.by_name(beside).stop(signal.SIGKILL)
        await power.ended(writing)
        one.disks[leader].fail("sync", "none")
        one.disks[leader].lose("all", 1)
        await asyncio.to_thread(one.start, [away, leader])
        assert one.promised and not await one.missing([leader])
        await asyncio.to_thread(one.start, [beside])
        await one.write([leader, away, beside], WORK_S)
        for name in (leader, away, beside):
            assert not await one.missing([name])


async def test_a_leader_whose_disk_is_full_refuses_writes_loses_nothing_and_goes_on_when_it_has_room(
    tmp_path: Path,
) -> None:
    with power.cluster(tmp_path, 3) as one:
        full = one.members.leader().name
        others = [member.name for member in one.members.members if member.name != full]
        await one.write([full, *others], WORK_S)
        one.disks[full].fail("write", "ENOSPC")
        process = one.by_name(full).process
        async with Client(one.urls([full]), timeout=power.TIMEOUT_S) as client:
            await put_until_refused(client)
            before = len(one.promised)
            await one.write(others, WORK_S)
            assert len(one.promised) > before, "the others go on"
            assert (await client.get(power.PREFIX + b"1", serializable=True)).kvs
            with pytest.raises(NoSpace):
                await client.put(b"small", b"1")
            one.disks[full].fail("write", "none")
            await put_when_taken(client)
        assert process is not None and process.poll() is None
        for name in (full, *others):
            assert not await one.missing([name])
        await asyncio.to_thread(one.cut_power, [full])
        await asyncio.to_thread(one.start, [full])
        assert not await one.missing([full])


async def test_a_leader_leads_on_while_its_disk_is_slow(tmp_path: Path) -> None:
    """A busy machine may make a leader lose its lead all the same; one that its disk costs it has none in any try."""
    changes: list[int] = []
    while 0 not in changes:
        assert len(changes) < TRIES, f"changes of the leader while its disk was slow: {changes}"
        with power.cluster(tmp_path / str(len(changes)), 4) as one:
            slow = one.members.leader()
            before = slow.metric("etcd_server_leader_changes_seen_total")
            one.disks[slow.name].slow(100)
            await one.write([member.name for member in one.members.members if member is not slow], 2.5)
            changes.append(slow.metric("etcd_server_leader_changes_seen_total") - before)
            one.disks[slow.name].slow(0)
            assert not await one.missing([slow.name])


async def test_a_leader_whose_disk_is_too_slow_leads_no_more(tmp_path: Path) -> None:
    with power.cluster(tmp_path, 4) as one:
        slow = one.members.leader()
        others = [member for member in one.members.members if member is not slow]
        one.disks[slow.name].slow(3000)
        writing = asyncio.create_task(one.write([member.name for member in others], 2.5))
        await asyncio.to_thread(until, "another leader", lambda: one.members.leader() in others)
        await writing
        took: list[float] = []
        async with Client([member.client_url for member in others], timeout=power.READ_S) as client:
            while not took or took[-1] > 1.0:
                assert len(took) < TRIES, f"a write waits for no slow disk: {took}"
                began, key = time.monotonic(), power.PREFIX + b"quick %d" % len(took)
                await client.put(key, b"v")
                one.promised[key] = b"v"
                took.append(time.monotonic() - began)
        one.disks[slow.name].slow(0)
        assert not await one.missing([slow.name])
