"""Members that do not hold the same: found by the check, at a real etcd and at ours."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import peers
from tests.conformance.members import START_SECONDS, Members, etcdctl_path, until
from tests.conformance.test_store_snapshots import kvctl

pytestmark = pytest.mark.skipif(etcdctl_path() is None, reason="etcdctl is not here: run make setup")
ALARM = re.compile(r"(?:memberID:(\d+) +)?alarm:CORRUPT")
"""Etcd 3.4 does not say whose it is."""


def snapshot(peer: peers.Peer, directory: Path, value: str) -> Path:
    """A state of two revisions, the second of this value."""
    members = Members(directory, 1, [], peer.command)
    try:
        members.start()
        members.ctl("put", "a", "same")
        members.ctl("put", "k", value)
        members.ctl("snapshot", "save", str(directory / "state.db"))
    finally:
        members.close()
    return directory / "state.db"


def restore(path: Path, members: Members, at: Sequence[int]) -> None:
    """The data directories of some members, from a snapshot."""
    for one in (members.members[number] for number in at):
        words = ["snapshot", "restore", str(path), "--name", one.name, "--data-dir", str(one.directory / one.name)]
        words += ["--initial-cluster", members.initial, "--initial-advertise-peer-urls", one.peer_url]
        if members.command == peers.ours().command:
            done = kvctl(*words)
            assert done.returncode == 0, done.stderr
        else:
            members.ctl(*words)


@pytest.fixture(params=["debian", "ours"])
def peer(request: pytest.FixtureRequest) -> peers.Peer:
    """Debian's etcd, whose etcdctl makes its data directories, and ours. The newest etcd does not start on those."""
    if request.param == "ours":
        return peers.ours()
    etcd = next((peer for peer in peers.find(with_newest=False)[0] if peer.name != "ours"), None)
    return etcd or pytest.skip("there is no etcd of Debian's: run make setup")


def flags(peer: peers.Peer) -> tuple[str, str]:
    """How a store is told to check each second, and before it serves."""
    if peer.name != "ours":
        return "--experimental-corrupt-check-time=1s", "--experimental-initial-corrupt-check"
    return "--corrupt-check-time=1s", "--feature-gates=InitialCorruptCheck=true"


def begin(members: Members) -> str:
    """Start all, and wait until there is an alarm; what is listed. With one no member is healthy."""
    for one in members.members:
        one.start(members.initial)

    def listed() -> str:
        answer = members.ctl_raw("alarm", "list").stdout
        return answer if ALARM.search(answer) else ""

    text: str = until("alarm", listed)
    return text


def ids(members: Members) -> dict[str, int]:
    listed = json.loads(members.ctl("member", "list", "-w", "json"))["members"]
    return {one["name"]: int(one["ID"]) for one in listed}


def leader(members: Members) -> int:
    answers = json.loads(members.ctl("endpoint", "status", "-w", "json"))
    return int(answers[0]["Status"]["leader"])


def test_a_member_that_holds_something_else_is_found_and_nothing_is_changed_any_more(
    peer: peers.Peer, tmp_path: Path
) -> None:
    always, initially = flags(peer)
    members = Members(tmp_path / "c", 3, [always], peer.command)
    for value, at in [("one", [0, 1]), ("two", [2])]:
        restore(snapshot(peer, tmp_path / value, value), members, at)
    try:
        told = begin(members)
        known = ids(members)
        # Whoever leads takes its own keys for right.
        wrong = {known["m2"]} if leader(members) != known["m2"] else {known["m0"], known["m1"]}
        suspects = {int(one) for one in ALARM.findall(told) if one}
        assert suspects <= wrong and (suspects or peer.name != "ours")
        for words in [("put", "x", "1"), ("del", "a"), ("lease", "grant", "60"), ("compact", "2")]:
            assert "etcdserver: corrupt cluster" in members.ctl_raw(*words).stderr, words
        assert members.ctl("get", "a") == "a\nsame\n"
        for one in members.members:
            one.stop()
        begin(members)
        last = members.members[2]
        last.stop()
        last.start(members.initial, "new", initially)
        assert last.process is not None
        assert last.process.wait(START_SECONDS) != 0
        assert "found data inconsistency with peers" in last.log.read_text()
    finally:
        members.close()


def test_members_that_hold_the_same_raise_nothing_and_start(tmp_path: Path) -> None:
    members = Members(tmp_path / "c", 3, ["--corrupt-check-time=100ms", flags(peers.ours())[1]])
    try:
        members.start()
        for number in range(100):
            members.ctl("put", f"k{number % 7}", str(number))
            if number % 20 == 19:
                members.ctl("compact", str(number))
        for one in members.members:
            one.stop()
            one.start(members.initial)
            members.wait()
        assert members.ctl("alarm", "list") == ""
        assert all("could not be compared" not in one.log.read_text() for one in members.members)
    finally:
        members.close()
