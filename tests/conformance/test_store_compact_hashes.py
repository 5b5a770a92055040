"""A member whose disk lies is found by hashes that were noted at compactions, at the newest etcd and at ours."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import peers
from kvstore.client import Client
from tests.conformance.members import Member, Members, etcdctl_path, until
from tests.conformance.test_store_corruption import ALARM, ids

pytestmark = pytest.mark.skipif(etcdctl_path() is None, reason="etcdctl is not here: run make setup")
FLAGS = ["--feature-gates=CompactHashCheck=true", "--compact-hash-check-time=200ms"]
RIGHT = "what the store was told"
ONE_CHECK_S = 1.0
"""Within which members that can be compared are."""


@pytest.fixture(params=["newest", "ours"])
def members(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Members]:
    peer = peers.ours() if request.param == "ours" else peers.newest()[0]
    if peer is None:
        pytest.skip("there is no Go to build the newest etcd with")
    members = Members(tmp_path / "c", 3, FLAGS, peer.command)
    try:
        members.start()
        yield members
    finally:
        members.close()


def alarms(members: Members) -> str:
    listed: str = members.ctl_raw("alarm", "list").stdout
    return listed


def newest(members: Members, at: list[Member] | None = None) -> str:
    """The revision that the cluster has, which one member's status may be behind."""
    return str(json.loads(members.ctl("get", "k", "-w", "json", at=at))["header"]["revision"])


def compact(members: Members) -> None:
    members.ctl("compact", newest(members))


def alter(members: Members, member: Member, value: str) -> None:
    """Its disk says something else from now on, which nothing there contradicts."""
    assert len(value) == len(RIGHT)
    member.stop()
    files = [path for path in member.data.rglob("*") if path.name in ("db", "data.mdb")]
    assert len(files) == 1
    written = files[0].read_bytes()
    assert RIGHT.encode() in written
    files[0].write_bytes(written.replace(RIGHT.encode(), value.encode()))
    member.start(members.initial)
    # Healthy it may not be: ours compares what it was compacted up to before, too.
    until("answer", lambda: member.fetch("/version"))


def compacted_anew(members: Members) -> str:
    """The alarms after one more compaction, which an alarm may have come before."""
    members.ctl_raw("put", "other", "1")
    members.ctl_raw("compact", newest(members))
    until("alarm", lambda: ALARM.search(alarms(members)))
    time.sleep(ONE_CHECK_S)
    return alarms(members)


@pytest.mark.parametrize("leads", [False, True], ids=["follower", "leader"])
def test_a_member_whose_disk_lies_is_found_at_the_next_compaction(members: Members, leads: bool) -> None:
    members.ctl("put", "k", RIGHT)
    compact(members)
    member = next(one for one in members.members if (one is members.leader()) is leads)
    alter(members, member, "what nobody had said  ?")
    found = ALARM.findall(compacted_anew(members))
    assert [int(one) for one in found] == [ids(members)[member.name]]
    assert "etcdserver: corrupt cluster" in members.ctl_raw("put", "k", "v").stderr


def test_where_no_two_are_alike_the_alarm_is_of_the_whole_cluster(members: Members) -> None:
    members.ctl("put", "k", RIGHT)
    compact(members)
    for number, member in enumerate(members.members[1:]):
        alter(members, member, f"what nobody had said {number:2}")
    found = ALARM.findall(compacted_anew(members))
    # Ours may have compared while two were still alike.
    assert "" in found and len(found) <= 2


async def test_members_that_are_alike_raise_nothing(tmp_path: Path) -> None:
    """Over slow compactions and such that follow each other faster than hashes are made, restarts and snapshots."""
    members = Members(tmp_path / "c", 3, [*FLAGS, "--snapshot-count=50"])
    try:
        members.start()
        for turn in range(4):
            away = members.members[turn % 3]
            away.stop()
            here = [one for one in members.members if one is not away]
            async with Client([one.client_url for one in here], timeout=60) as client:
                for number in range(60):
                    put = await client.put(b"k%d" % (number % 7), b"%d %d" % (turn, number))
                    if number % 20 == 19 or turn == 3:
                        await client.compact(put.header.revision)
            away.start(members.initial)
            members.wait()
            time.sleep(ONE_CHECK_S)
        members.ctl("put", "k", "last")
        compact(members)
        time.sleep(ONE_CHECK_S)
        assert alarms(members) == ""
        told = [one.log.read_text() for one in members.members]
        assert all("CORRUPT" not in text and "no hash of the last compaction" not in text for text in told)
    finally:
        members.close()
