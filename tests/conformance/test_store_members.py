"""What three members do when one of them dies or comes back with an empty disk."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import time
from collections.abc import Iterator

import pytest

from benchmarks.ports import free_ports
from kvstore.client import Client
from kvstore.errors import StoreError
from tests.conformance.members import START_SECONDS, Member, Members, etcdctl_path, until
from tests.storelab import syncs_held

CLIENT_TIMEOUT_S = 60.0
REQUEST_TIMEOUT_S = 6.2
"""A member's own: 5 s and two elections, as etcd's."""
TRIES = 3

pytestmark = pytest.mark.skipif(etcdctl_path() is None, reason="etcdctl is not here: run make setup")


async def test_a_write_that_went_down_with_its_leader_does_not_wait_for_its_timeout(three: Members) -> None:
    """On a busy machine an election may take as long; a write that waits for its timeout does so in each try."""
    longest: list[float] = []
    while not longest or longest[-1] >= REQUEST_TIMEOUT_S:
        assert len(longest) < TRIES, f"puts waited, seconds: {longest}"
        longest.append(await longest_put(three))


async def longest_put(three: Members) -> float:
    """Of puts through a follower while leaders are killed."""
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
                assert "leader" in str(error) or "timed out" in str(error), error
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
    return longest


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
        assert (await renewal).ttl == 60
    finally:
        await client.close()


def test_a_leader_whose_disk_hangs_leads_no_more(three: Members) -> None:
    hung = three.leader()
    rest = [member for member in three.members if member is not hung]
    assert hung.process is not None
    with syncs_held(hung.process.pid):
        lease = three.ctl("lease", "grant", "3", at=rest).split()[1]
        three.ctl("put", "k", "v", f"--lease={lease}", at=rest)
        until("another leader", lambda: three.leader() in rest)
        # The one that hung could not let it end: it has not applied the grant.
        until("the end of the lease", lambda: three.ctl("get", "k", at=rest) == "")
        done = three.ctl_raw("--command-timeout=60s", "put", "late", "v", at=[hung])
        assert "request timed out" in done.stderr, done
        assert three.ctl("get", "late", at=rest) == "late\nv\n", "it was passed on all the same"
    until("its copy", lambda: three.ctl("get", "late", "--consistency=s", at=[hung]) == "late\nv\n")


@pytest.mark.parametrize("flag", ["existing", "new"])
def test_a_member_with_an_emptied_disk_does_not_come_back_under_its_old_id(three: Members, flag: str) -> None:
    three.ctl("put", "k", "v")
    gone = next(member for member in three.members if member is not three.leader())
    until("its first word to the others", lambda: gone.client_url in three.ctl("member", "list"))
    gone.stop(signal.SIGKILL)
    shutil.rmtree(gone.directory / gone.name)
    gone.start(three.initial, flag)
    assert gone.process is not None
    assert gone.process.wait(START_SECONDS) != 0
    gone.process = None
    said = gone.log.read_text()
    assert "has run before" in said and "remove that member" in said
    rest = [member for member in three.members if member is not gone]
    until("an answer of the two others", lambda: three.ctl("get", "k", at=rest) == "k\nv\n")


@pytest.fixture
def learner(three: Members) -> Iterator[Member]:
    """One that has joined `three` and has what they have."""
    client, peer = free_ports(2)
    one = Member("m9", three.directory, client, peer, three.extra)
    three.ctl("member", "add", one.name, f"--peer-urls={one.peer_url}", "--learner")
    one.start(f"{three.initial},{one.name}={one.peer_url}", "existing")
    try:
        until(f"an answer of {one.name}", lambda: three.ctl_raw("endpoint", "status", at=[one]).returncode == 0)
        everything = three.status(three.leader())["raftIndex"]
        until("all of the log", lambda: three.status(one).get("raftAppliedIndex", 0) >= everything)
        yield one
    finally:
        if one.process is not None:
            one.stop(signal.SIGKILL)


def test_a_member_that_is_told_of_its_own_new_address_is_not_lost_until_it_moves(three: Members) -> None:
    follower = next(member for member in three.members if member is not three.leader())
    listed = json.loads(three.ctl("member", "list", "-w", "json"))["members"]
    identity = next(f"{one['ID']:x}" for one in listed if one["name"] == follower.name)
    (follower.peer_port,) = free_ports(1)
    three.ctl("member", "update", identity, f"--peer-urls={follower.peer_url}", at=[follower])
    three.ctl("put", "k", "1", at=[follower])
    assert three.ctl("get", "k", "--consistency=s", at=[follower]) == "k\n1\n"
    follower.stop()
    three.ctl("put", "k", "2", at=[member for member in three.members if member is not follower])
    follower.start(three.initial)
    until("its return at the new address", lambda: three.ctl("get", "k", at=[follower], check=False) == "k\n2\n")


def told_of_loss(members: list[Member], gone: Member) -> None:
    """Kill a member and wait until these have noticed."""
    before = {member.name: len(member.log.read_text()) for member in members}
    gone.stop(signal.SIGKILL)

    def noticed(member: Member) -> bool:
        return gone.peer_url in member.log.read_text()[before[member.name] :]

    for member in members:
        until(f"{member.name} saying that {gone.name} is gone", lambda m=member: noticed(m))


def test_a_learner_that_died_in_sync_is_not_promoted(three: Members, learner: Member) -> None:
    listed = json.loads(three.ctl("member", "list", "-w", "json"))["members"]
    identity = next(f"{one['ID']:x}" for one in listed if one.get("isLearner"))
    told_of_loss(three.members, learner)
    done = three.ctl_raw("member", "promote", identity)
    assert "can only promote a learner member which is in sync with leader" in done.stderr, done
    learner.start(three.initial, "existing")
    until("its promotion", lambda: "promoted" in three.ctl("member", "promote", identity, check=False))


@pytest.mark.parametrize("how", [[], ["--learner"]])
def test_no_member_comes_while_a_voter_that_it_would_need_is_down(three: Members, how: list[str]) -> None:
    client, peer = free_ports(2)
    fresh = Member("m9", three.directory, client, peer)
    gone = next(member for member in three.members if member is not three.leader())
    rest = [member for member in three.members if member is not gone]
    told_of_loss(rest, gone)
    words = ["member", "add", fresh.name, f"--peer-urls={fresh.peer_url}", *how]
    done = three.ctl_raw(*words, at=rest)
    assert "etcdserver: unhealthy cluster" in done.stderr, done
    gone.start(three.initial)
    until("its addition", lambda: "added to cluster" in three.ctl(*words, at=rest, check=False))
