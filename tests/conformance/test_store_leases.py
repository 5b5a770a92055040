"""What is left of a lease outlives its leader, restarts and snapshots; a renewal does too."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore import backup
from tests.conformance.members import Member, Members, etcdctl_path, running, until

pytestmark = pytest.mark.skipif(etcdctl_path() is None, reason="etcdctl is not here: run make setup")

TTL_S = 600
PAUSE_S = 4.0


def left(members: Members, lease: str, at: list[Member]) -> int:
    """Seconds left of a lease; -1 when it is over."""
    ttl: int = json.loads(members.ctl("lease", "timetolive", lease, "-w", "json", at=at))["ttl"]
    return ttl


@pytest.fixture
def noting(tmp_path: Path) -> Iterator[Members]:
    """Three members that note every second what is left of leases."""
    flags = ["--heartbeat-interval=50", "--election-timeout=500", "--lease-checkpoint-interval=1s"]
    with running(Members(tmp_path, 3, flags)) as members:
        yield members


def granted(members: Members, at: list[Member]) -> str:
    return members.ctl("lease", "grant", str(TTL_S), at=at).split()[1]


def restarted(members: Members, leader: Member) -> None:
    """Kills the leader, waits for another, and has it back."""
    leader.stop(signal.SIGKILL)
    members.leader()
    leader.start(members.initial)
    members.wait()


def test_a_new_leader_goes_on_where_the_one_before_was(noting: Members) -> None:
    leases = [granted(noting, noting.members) for _ in range(2)]
    time.sleep(PAUSE_S)
    # Of the second all is left again, and the log says so before it is answered.
    assert noting.ctl("lease", "keep-alive", "--once", leases[1]).split()[-1] == f"TTL({TTL_S})"
    restarted(noting, noting.leader())
    first, second = (left(noting, lease, noting.members) for lease in leases)
    assert TTL_S - 120 < first <= TTL_S - PAUSE_S + 1
    assert first + PAUSE_S / 2 <= second <= TTL_S
    # Without a quorum for a while, and all of them anew.
    for member in noting.members:
        member.stop(signal.SIGKILL)
    for member in noting.members:
        member.start(noting.initial)
    noting.wait()
    assert left(noting, leases[0], noting.members) <= first


def test_a_snapshot_tells_what_is_left(noting: Members, tmp_path: Path) -> None:
    lease = granted(noting, noting.members)
    time.sleep(PAUSE_S)
    path = tmp_path / "backup.db"
    backup.save(noting.leader().client_url, path)
    alone = Members(tmp_path / "alone", 1)
    (member,) = alone.members
    backup.restore(
        path,
        name=member.name,
        data_dir=member.directory / member.name,
        initial_cluster=[(member.name, member.peer_url)],
        initial_advertise_peer_urls=[member.peer_url],
    )
    try:
        alone.start()
        assert TTL_S - 120 < left(alone, lease, alone.members) <= TTL_S - PAUSE_S + 1
    finally:
        alone.close()


def test_with_the_gate_closed_each_leader_begins_anew(tmp_path: Path) -> None:
    extra = ["--lease-checkpoint-interval=1s", "--feature-gates=LeaseCheckpoint=false"]
    alone = Members(tmp_path, 1, extra)
    try:
        alone.start()
        lease = granted(alone, alone.members)
        time.sleep(PAUSE_S)

        def begun_anew() -> bool:
            # From its start on time passes, on a busy machine perhaps too much until it is asked.
            alone.members[0].stop(signal.SIGKILL)
            alone.members[0].start(alone.initial)
            alone.wait()
            return left(alone, lease, alone.members) > TTL_S - PAUSE_S + 1

        until("the lease", begun_anew)
    finally:
        alone.close()
