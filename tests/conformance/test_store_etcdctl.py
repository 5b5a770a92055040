"""Debian's etcdctl against real members of ours: one, then three that die, come back and catch up."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.ports import free_ports
from tests.conformance.members import START_SECONDS, Member, Members, etcdctl_path, until

pytestmark = pytest.mark.skipif(etcdctl_path() is None, reason="etcdctl is not here: apt-get download etcd-client")


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Members]:
    members = Members(tmp_path_factory.mktemp("one"), 1)
    try:
        members.start()
        yield members
    finally:
        members.close()


def test_put_get_del(one: Members) -> None:
    assert one.ctl("put", "a/1", "x") == "OK\n"
    assert one.ctl("put", "a/2", "y") == "OK\n"
    assert one.ctl("get", "a/", "--prefix") == "a/1\nx\na/2\ny\n"
    assert one.ctl("get", "a/", "--prefix", "--keys-only", "--limit=1").strip() == "a/1"
    assert one.ctl("get", "a/1", "a/3", "--order=DESCEND", "--sort-by=KEY") == "a/2\ny\na/1\nx\n"
    assert one.ctl("put", "a/1", "z", "--prev-kv") == "OK\na/1\nx\n"
    assert one.ctl("del", "a/", "--prefix", "--prev-kv") == "2\na/1\nz\na/2\ny\n"
    assert one.ctl("get", "a/", "--prefix") == ""


def test_old_revisions_and_compaction(one: Members) -> None:
    one.ctl("put", "old", "1")
    before = json.loads(one.ctl("get", "old", "-w", "json"))["header"]["revision"]
    one.ctl("put", "old", "2")
    assert one.ctl("get", "old", f"--rev={before}") == "old\n1\n"
    assert one.ctl("compact", str(before + 1)) == f"compacted revision {before + 1}\n"
    refused = one.ctl_raw("get", "old", f"--rev={before}")
    assert "etcdserver: mvcc: required revision has been compacted" in refused.stderr
    refused = one.ctl_raw("get", "old", f"--rev={before + 100}")
    assert "etcdserver: mvcc: required revision is a future revision" in refused.stderr


def test_txn(one: Members) -> None:
    one.ctl("put", "t", "1")
    script = 'value("t") = "1"\n\nput t 2\nget t\n\nput t 3\n\n'
    assert one.ctl("txn", stdin=script) == "SUCCESS\n\nOK\n\nt\n2\n"
    assert one.ctl("txn", stdin=script) == "FAILURE\n\nOK\n"
    assert one.ctl("get", "t") == "t\n3\n"


def test_watch_from_a_revision_and_on(one: Members) -> None:
    one.ctl("put", "w/1", "a")
    revision = json.loads(one.ctl("get", "w/1", "-w", "json"))["header"]["revision"]
    command = one.ctl_command("watch", "w/", "--prefix", "--prev-kv", f"--rev={revision}")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        try:
            assert [watch.stdout.readline() for _ in range(3)] == ["PUT\n", "w/1\n", "a\n"]
            one.ctl("put", "w/1", "b")
            assert [watch.stdout.readline() for _ in range(5)] == ["PUT\n", "w/1\n", "a\n", "w/1\n", "b\n"]
            one.ctl("del", "w/1")
            assert watch.stdout.readline() == "DELETE\n"
        finally:
            watch.kill()


def test_watch_of_what_was_compacted_is_canceled(one: Members) -> None:
    one.ctl("put", "c", "1")
    one.ctl("put", "c", "2")
    revision = json.loads(one.ctl("get", "c", "-w", "json"))["header"]["revision"]
    one.ctl("compact", str(revision))
    result = one.ctl_raw("watch", "c", "--rev=1")
    assert "required revision has been compacted" in result.stdout + result.stderr


def test_leases(one: Members) -> None:
    granted = one.ctl("lease", "grant", "90")
    lease = granted.split()[1]
    assert granted == f"lease {lease} granted with TTL(90s)\n"
    one.ctl("put", "l", "1", f"--lease={lease}")
    assert lease in one.ctl("lease", "list")
    assert "attached keys([l])" in one.ctl("lease", "timetolive", lease, "--keys")
    assert one.ctl("lease", "keep-alive", "--once", lease) == f"lease {lease} keepalived with TTL(90)\n"
    one.ctl("lease", "revoke", lease)

    def short() -> str:
        """A lease that ends soon, with a key: on a busy machine it may have ended before it has one."""
        mine = one.ctl("lease", "grant", "2").split()[1]
        return mine if one.ctl_raw("put", "l", "1", f"--lease={mine}").returncode == 0 else ""

    lease = until("a key with a short lease", short)
    until("expiry of the lease", lambda: one.ctl("get", "l") == "")
    assert "already expired" in one.ctl("lease", "timetolive", lease)
    refused = one.ctl_raw("lease", "revoke", lease)
    assert "etcdserver: requested lease not found" in refused.stderr
    lease = one.ctl("lease", "grant", "100").split()[1]
    one.ctl("put", "l", "1", f"--lease={lease}")
    assert one.ctl("lease", "revoke", lease) == f"lease {lease} revoked\n"
    assert one.ctl("get", "l") == ""


def test_limits_have_etcds_errors(one: Members) -> None:
    assert "etcdserver: key is not provided" in one.ctl_raw("put", "", "x").stderr
    operations = "".join(f"put k{i} v\n" for i in range(129))
    assert "too many operations in txn request" in one.ctl_raw("txn", stdin=f"\n{operations}\n\n").stderr
    assert "duplicate key given in txn request" in one.ctl_raw("txn", stdin="\nput k 1\nput k 2\n\n\n").stderr
    value = "x" * 1_600_000
    assert "request is too large" in one.ctl_raw("put", "big", stdin=value).stderr


def test_cluster_and_endpoint(one: Members) -> None:
    member = one.members[0]
    (listed,) = json.loads(one.ctl("member", "list", "-w", "json"))["members"]
    assert listed["name"] == "m0"
    assert listed["peerURLs"] == [member.peer_url]
    assert listed["clientURLs"] == [member.client_url]
    status = one.status(member)
    assert status["leader"] == status["header"]["member_id"] == listed["ID"]
    assert status["raftAppliedIndex"] >= 1
    health = one.ctl_raw("endpoint", "health")
    assert "is healthy" in health.stdout + health.stderr


def test_plain_http_on_the_client_port(one: Members) -> None:
    member = one.members[0]
    assert '"health":"true"' in member.fetch("/health")
    assert '"etcdserver":"3.' in member.fetch("/version")

    def ranges() -> int:
        start = 'grpc_server_handled_total{grpc_code="OK",grpc_method="Range"'
        lines = [line for line in member.fetch("/metrics").splitlines() if line.startswith(start)]
        return int(lines[0].split()[-1]) if lines else 0

    before = ranges()
    one.ctl("get", "none")
    assert ranges() == before + 1


def test_a_restart_keeps_all(tmp_path: Path) -> None:
    members = Members(tmp_path, 1)
    (member,) = members.members
    try:
        members.start()
        members.ctl("put", "k", "v")
        lease = members.ctl("lease", "grant", "1000").split()[1]
        assert member.stop() == 0
        member.start(members.initial)
        members.wait()
        assert members.ctl("get", "k") == "k\nv\n"
        assert lease in members.ctl("lease", "list")
        member.stop(signal.SIGKILL)
        member.start(members.initial)
        members.wait()
        assert members.ctl("get", "k") == "k\nv\n"
    finally:
        members.close()


def test_any_member_serves_all(three: Members) -> None:
    for i, member in enumerate(three.members):
        three.ctl("put", f"k{i}", "v", at=[member])
        for other in three.members:
            assert three.ctl("get", f"k{i}", at=[other]) == f"k{i}\nv\n"
        lease = three.ctl("lease", "grant", "60", at=[member]).split()[1]
        for other in three.members:
            assert "TTL(60)" in three.ctl("lease", "keep-alive", "--once", lease, at=[other])
            assert "granted with TTL(60s)" in three.ctl("lease", "timetolive", lease, at=[other])
    identities = {three.status(member)["header"]["member_id"] for member in three.members}
    assert len(identities) == 3


class Writer:
    """Puts numbered keys as fast as one etcdctl txn script at a time allows, and keeps what was acknowledged."""

    def __init__(self, members: Members, name: str) -> None:
        self.members, self.name = members, name
        self.acknowledged: list[int] = []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        number = 0
        while not self.stopping.is_set():
            number += 1
            result = self.members.ctl_raw("put", f"{self.name}/{number}", str(number))
            if result.returncode == 0 and result.stdout == "OK\n":
                self.acknowledged.append(number)

    def stop(self) -> None:
        self.stopping.set()
        self.thread.join()

    def check(self, member: Member) -> None:
        found = self.members.ctl("get", f"{self.name}/", "--prefix", "--keys-only", at=[member]).split()
        missing = {f"{self.name}/{n}" for n in self.acknowledged} - set(found)
        assert not missing, f"acknowledged and lost: {sorted(missing)}"


def test_the_leader_is_killed_under_load(three: Members) -> None:
    writers = [Writer(three, f"w{i}") for i in range(4)]
    try:
        for _ in range(3):
            before = [len(writer.acknowledged) for writer in writers]
            until(
                "more writes of each writer",
                lambda before=before: all(
                    len(writer.acknowledged) > count + 4 for writer, count in zip(writers, before, strict=True)
                ),
            )
            leader = three.leader()
            leader.stop(signal.SIGKILL)
            time.sleep(1.5)
            leader.start(three.initial)
            three.wait()
    finally:
        for writer in writers:
            writer.stop()
    assert all(len(writer.acknowledged) > 10 for writer in writers)
    for writer in writers:
        for member in three.members:
            writer.check(member)


def test_no_linearizable_answer_without_a_quorum(three: Members) -> None:
    three.ctl("put", "k", "v")
    leader = three.leader()
    others = [m for m in three.members if m is not leader]
    for other in others:
        other.send(signal.SIGSTOP)
    try:
        assert three.ctl_raw("get", "k", "--command-timeout=3s", at=[leader]).returncode != 0
        assert three.ctl_raw("put", "k", "w", "--command-timeout=3s", at=[leader]).returncode != 0
        assert three.ctl("get", "k", "--consistency=s", at=[leader]) == "k\nv\n"
    finally:
        for other in others:
            other.send(signal.SIGCONT)
    three.wait()
    until("answer after the quorum is back", lambda: three.ctl("get", "k", check=False).startswith("k\n"))


def test_a_member_that_lags_is_caught_up_by_snapshot(tmp_path: Path) -> None:
    members = Members(tmp_path, 3, ["--snapshot-count=100", "--heartbeat-interval=60", "--election-timeout=600"])
    try:
        members.start()
        away = next(m for m in members.members if m is not members.leader())
        away.stop(signal.SIGKILL)
        alive = [m for m in members.members if m is not away]
        script = "\n" + "".join(f"put s{i} {'v' * 1000}\n" for i in range(100)) + "\n\n"
        for _ in range(12):
            members.ctl("txn", at=alive, stdin=script)
        for i in range(300):
            members.ctl("put", f"n{i}", "v", at=alive)
        away.start(members.initial)
        members.wait()
        until("snapshot applied", lambda: members.ctl("get", "n299", "--consistency=s", at=[away]) == "n299\nv\n")
        assert len(members.ctl("get", "s", "--prefix", "--keys-only", at=[away]).split()) == 100
    finally:
        members.close()


def test_a_voter_is_replaced_by_hand(three: Members) -> None:
    three.ctl("put", "k", "v")
    gone = next(m for m in three.members if m is not three.leader())
    rest = [m for m in three.members if m is not gone]
    identity = f"{three.status(gone)['header']['member_id']:x}"
    assert "removed from cluster" in three.ctl("member", "remove", identity, at=rest)
    assert gone.process is not None
    gone.process.wait(START_SECONDS)
    assert "removed" in gone.log.read_text()
    client, peer = free_ports(2)
    fresh = Member("m9", three.directory, client, peer, list(three.extra))
    added = three.ctl("member", "add", "m9", f"--peer-urls={fresh.peer_url}", "--learner", at=rest)
    assert "added to cluster" in added
    three.members = [*rest, fresh]
    fresh.start(three.initial, "existing")
    until("learner that follows", lambda: three.ctl_raw("get", "k", "--consistency=s", at=[fresh]).stdout == "k\nv\n")
    listed = json.loads(three.ctl("member", "list", "-w", "json", at=rest))["members"]
    (learner,) = [m for m in listed if m.get("isLearner")]
    until("promotion", lambda: "promoted" in three.ctl("member", "promote", f"{learner['ID']:x}", at=rest, check=False))
    three.wait()
    three.ctl("put", "k", "w", at=[fresh])
    assert three.ctl("get", "k", at=rest) == "k\nw\n"


def test_bad_settings_are_sentences(tmp_path: Path) -> None:
    client, peer = free_ports(2)
    member = Member("m0", tmp_path, client, peer)
    member.start(f"m0={member.peer_url}", "new", "--listen-client-urls=http://0.0.0.0:1")
    assert member.process is not None
    assert member.process.wait(START_SECONDS) == 2
    member.process = None
    assert "pass --insecure" in member.log.read_text()


def test_metrics_count_what_was_done_at_each_member(three: Members) -> None:
    names = ("put", "delete", "range", "txn")

    def counts(member: Member) -> dict[str, int]:
        return {name: member.metric(f"etcd_mvcc_{name}_total") for name in names}

    leader = three.leader()
    follower = next(member for member in three.members if member is not leader)
    before = {member.name: counts(member) for member in three.members}
    for number in range(3):
        three.ctl("put", "k", str(number), at=[follower])
    three.ctl("del", "k", at=[follower])
    three.ctl("del", "none", at=[follower])
    three.ctl("get", "k", at=[follower])
    three.ctl("get", "k", at=[leader], check=True)
    three.ctl("txn", at=[follower], stdin='version("k") = "0"\n\nput k 1\nget k\n\ndel k\n\n')
    three.ctl("txn", at=[follower], stdin='version("k") = "0"\n\nput k 1\n\nget k\nget k\n\n')  # does not hold
    three.ctl("txn", at=[follower], stdin='version("k") = "1"\n\nget k\nget k\n\n\n')  # only reads

    for member in three.members:
        # What writes is carried out by every member, what only reads by the one asked.
        ranges = 1 + 2 + {leader.name: 1, follower.name: 1 + 2}.get(member.name, 0)
        txns = 2 + (member is follower)
        expected = {"put": 4, "delete": 2, "range": ranges, "txn": txns}
        start = before[member.name]

        def grown(member: Member = member, start: dict[str, int] = start) -> dict[str, int]:
            return {name: value - start[name] for name, value in counts(member).items()}

        until(f"{expected} at {member.name}, not {grown()}", lambda g=grown, e=expected: g() == e)
        assert member.metric("etcd_debugging_mvcc_keys_total") == 1


def test_metrics_of_leader_and_proposals(three: Members) -> None:
    def told() -> bool:
        """Whether each member's first proposal, its client URLs, is in."""
        listed = json.loads(three.ctl("member", "list", "-w", "json"))["members"]
        return all(member.get("clientURLs") for member in listed)

    until("the client URLs of all", told)
    leader = three.leader()
    others = [member for member in three.members if member is not leader]
    assert sorted(member.metric("etcd_server_is_leader") for member in three.members) == [0, 0, 1]
    assert all(member.metric("etcd_server_has_leader") == 1 for member in three.members)
    seen = {member.name: member.metric("etcd_server_leader_changes_seen_total") for member in others}
    applied = others[0].metric("etcd_server_proposals_applied_total")
    three.ctl("put", "k", "1", at=[others[0]])
    assert others[0].metric("etcd_server_proposals_applied_total") > applied
    assert leader.metric("etcd_server_proposals_committed_total") > applied
    leader.stop(signal.SIGKILL)
    for member in others:
        until("another leader", lambda m=member: m.metric("etcd_server_leader_changes_seen_total") > seen[m.name])
    others[1].stop(signal.SIGKILL)
    last = others[0]
    until("loss of the leader", lambda: last.metric("etcd_server_has_leader") == 0)
    failed = last.metric("etcd_server_proposals_failed_total")
    assert last.metric("etcd_server_proposals_pending") == 0
    with subprocess.Popen(three.ctl_command("put", "k", "2", "--command-timeout=20s", at=[last])) as put:
        until("a proposal that waits", lambda: last.metric("etcd_server_proposals_pending") == 1)
        assert put.wait(60) != 0
    assert last.metric("etcd_server_proposals_failed_total") > failed
    until("nothing that waits", lambda: last.metric("etcd_server_proposals_pending") == 0)


def test_changes_that_would_lose_the_quorum_are_refused(tmp_path: Path) -> None:
    members = Members(tmp_path, 1)
    try:
        members.start()
        members.ctl("put", "k", "v")
        (mine,) = json.loads(members.ctl("member", "list", "-w", "json"))["members"]
        start = time.monotonic()
        refused = "etcdserver: re-configuration failed due to not enough started members"
        assert refused in members.ctl_raw("member", "remove", f"{mine['ID']:x}").stderr
        learner = f"http://127.0.0.1:{free_ports(1)[0]}"
        added = json.loads(members.ctl("member", "add", "l", "--learner", f"--peer-urls={learner}", "-w", "json"))[
            "member"
        ]
        in_sync = "etcdserver: can only promote a learner member which is in sync with leader"
        assert in_sync in members.ctl_raw("member", "promote", f"{added['ID']:x}").stderr
        assert "can only promote a learner member\n" in members.ctl_raw("member", "promote", f"{mine['ID']:x}").stderr
        members.ctl("member", "remove", f"{added['ID']:x}")
        ports = free_ports(2)
        members.ctl("member", "add", "m1", f"--peer-urls=http://127.0.0.1:{ports[0]}")
        # Two voters, one of which has not started: neither may another come nor the one that has started go.
        again = members.ctl_raw("member", "add", "m2", f"--peer-urls=http://127.0.0.1:{ports[1]}")
        assert refused in again.stderr
        assert refused in members.ctl_raw("member", "remove", f"{mine['ID']:x}").stderr
        assert time.monotonic() - start < 30, "six that each wait until their time is over take longer"
    finally:
        members.close()


def test_a_voter_that_the_quorum_needs_stays(three: Members) -> None:
    listed = json.loads(three.ctl("member", "list", "-w", "json"))["members"]
    ids = {member["name"]: f"{member['ID']:x}" for member in listed}
    down, kept, *_ = [member for member in three.members if member is not three.leader()]
    up = [member for member in three.members if member is not down]
    down.stop(signal.SIGKILL)

    def refused() -> bool:
        result = three.ctl_raw("member", "remove", ids[kept.name], at=up)
        assert result.returncode, "a voter that is needed went"
        return "etcdserver: unhealthy cluster" in result.stderr

    until("refusal", refused)
    three.ctl("member", "remove", ids[down.name], at=up)
    three.ctl("put", "k", "v", at=up)
