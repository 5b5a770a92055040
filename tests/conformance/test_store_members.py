"""What three members do when one of them dies or comes back with an empty disk."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore.client import Client
from kvstore.errors import StoreError
from tests.conformance.members import Members, etcdctl_path, until
from tests.storelab import syncs_held

CLIENT_TIMEOUT_S = 20.0
REQUEST_TIMEOUT_S = 6.2
"""A member's own: 5 s and two elections, as etcd's."""

pytestmark = pytest.mark.skipif(etcdctl_path() is None, reason="etcdctl is not here: run make setup")


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Members]:
    members = Members(tmp_path, 3, ["--heartbeat-interval=60", "--election-timeout=600"])
    try:
        members.start()
        yield members
    finally:
        members.close()


async def test_a_write_that_went_down_with_its_leader_does_not_wait_for_its_timeout(three: Members) -> None:
    leader = three.leader()
    follower = next(member for member in three.members if member is not leader)
    client = Client([follower.client_url], timeout=CLIENT_TIMEOUT_S)
    longest, failed, going = 0.0, 0, True

    async def put(number: int) -> None:
        nonlocal longest, failed
        while going:
            begin = time.monotonic()
            try:
                await client.put(f"k{number}".encode(), b"v")
            except StoreError as error:
                failed += 1
                assert "leader" in str(error), error
            longest = max(longest, time.monotonic() - begin)

    try:
        writers = [asyncio.create_task(put(number)) for number in range(16)]
        for _ in range(3):
            await asyncio.sleep(1.0)
            if three.leader() is follower:
                break
            leader = three.leader()
            leader.stop(signal.SIGKILL)
            await asyncio.sleep(2.0)
            leader.start(three.initial)
            await asyncio.to_thread(three.wait)
        going = False
        await asyncio.gather(*writers)
    finally:
        await client.close()
    print(f"the longest put took {longest:.2f} s; {failed} ended without a known outcome")
    assert longest < REQUEST_TIMEOUT_S, f"a put waited {longest:.1f} s"


async def test_a_lease_that_the_leader_has_not_on_disk_yet_is_not_said_to_be_lost(three: Members) -> None:
    leader = three.leader()
    follower = next(member for member in three.members if member is not leader)
    client = Client([follower.client_url], timeout=CLIENT_TIMEOUT_S)
    assert leader.process is not None
    try:
        with syncs_held(leader.process.pid):
            lease = (await client.lease_grant(60)).id  # both followers have it, and that is a majority
            renewal = asyncio.create_task(client.lease_keepalive(lease))
            await asyncio.wait({renewal}, timeout=1.0)
        assert await renewal == 60
    finally:
        await client.close()


def test_a_member_with_an_emptied_disk_does_not_come_back_under_its_old_id(three: Members) -> None:
    three.ctl("put", "k", "v")
    gone = next(member for member in three.members if member is not three.leader())
    gone.stop(signal.SIGKILL)
    shutil.rmtree(gone.directory / gone.name)
    gone.start(three.initial, "existing")
    assert gone.process is not None
    assert gone.process.wait(15) != 0
    gone.process = None
    said = gone.log.read_text()
    assert "has run before" in said and "remove that member" in said
    rest = [member for member in three.members if member is not gone]
    until("an answer of the two others", lambda: three.ctl("get", "k", at=rest) == "k\nv\n")
