"""Metrics: what etcd's own Grafana dashboard and alerts ask for is there, of the same kind and with the same labels."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.etcd.beside import NEEDS_CLIENTS, Beside, beside
from tests.conformance.etcd.side import Side, version
from tests.conformance.members import Member, until

pytestmark = NEEDS_CLIENTS
HISTOGRAMS = (
    "etcd_disk_backend_commit_duration_seconds",
    "etcd_disk_wal_fsync_duration_seconds",
    "etcd_network_peer_round_trip_time_seconds",
)
NEEDED = (
    *HISTOGRAMS,
    "etcd_mvcc_db_total_size_in_bytes",
    "etcd_mvcc_db_total_size_in_use_in_bytes",
    "etcd_network_client_grpc_received_bytes_total",
    "etcd_network_client_grpc_sent_bytes_total",
    "etcd_network_peer_received_bytes_total",
    "etcd_network_peer_sent_bytes_total",
    "etcd_server_has_leader",
    "etcd_server_leader_changes_seen_total",
    "etcd_server_proposals_applied_total",
    "etcd_server_proposals_committed_total",
    "etcd_server_proposals_failed_total",
    "etcd_server_proposals_pending",
    "etcd_server_quota_backend_bytes",
    "grpc_server_handled_total",
    "grpc_server_started_total",
    "process_resident_memory_bytes",
)
"""Those of the dashboard and the alerts in etcd's `contrib/mixin`. Etcd has `grpc_server_handling_seconds`, which one
alert names, with `--metrics extensive` alone, and `etcd_network_peer_sent_failures_total` from the first failure on."""
APPLY_DURATION = "etcd_server_apply_duration_seconds"
LAST_COMPACTION = "etcd_debugging_mvcc_db_compaction_last"
SINCE = {
    APPLY_DURATION: (3, 5),
    "etcd_server_range_duration_seconds": (3, 5),
    "etcd_server_request_duration_seconds": (3, 6),
    LAST_COMPACTION: (3, 5),
    "etcd_disk_defrag_inflight": (3, 5),
}
"""What etcd 3.4 lacks of all these."""
BESIDE = (
    "etcd_debugging_lease_granted_total",
    "etcd_debugging_lease_renewed_total",
    "etcd_debugging_lease_revoked_total",
    "etcd_debugging_lease_ttl_total",
    "etcd_debugging_mvcc_events_total",
    "etcd_debugging_mvcc_pending_events_total",
    "etcd_debugging_mvcc_slow_watcher_total",
    "etcd_debugging_server_lease_expired_total",
    APPLY_DURATION,
    "etcd_server_read_indexes_failed_total",
    "etcd_server_slow_apply_total",
    "etcd_server_slow_read_indexes_total",
    "etcd_server_request_duration_seconds",
    "etcd_server_range_duration_seconds",
    "etcd_debugging_mvcc_db_compaction_keys_total",
    LAST_COMPACTION,
    "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
    "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
    "etcd_disk_backend_defrag_duration_seconds",
    "etcd_disk_backend_snapshot_duration_seconds",
    "etcd_disk_defrag_inflight",
    "etcd_mvcc_hash_duration_seconds",
    "etcd_mvcc_hash_rev_duration_seconds",
    "etcd_snap_db_save_total_duration_seconds",
    "etcd_cluster_version",
    "etcd_debugging_mvcc_compact_revision",
    "etcd_debugging_mvcc_current_revision",
    "etcd_debugging_mvcc_keys_total",
    "etcd_debugging_mvcc_watch_stream_total",
    "etcd_debugging_mvcc_watcher_total",
    "etcd_mvcc_delete_total",
    "etcd_mvcc_put_total",
    "etcd_mvcc_range_total",
    "etcd_mvcc_txn_total",
    "etcd_server_id",
    "etcd_server_is_leader",
    "etcd_server_is_learner",
    "etcd_server_version",
    "grpc_server_msg_received_total",
    "grpc_server_msg_sent_total",
    "os_fd_limit",
    "os_fd_used",
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_start_time_seconds",
    "process_virtual_memory_bytes",
)
"""What else many look at."""
HANDLING = "grpc_server_handling_seconds"
LINE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beside]:
    yield from beside(3, tmp_path_factory.mktemp("metrics"))


def metrics_of(member: Member) -> tuple[dict[str, str], dict[str, list[tuple[str, float]]]]:
    """Kinds by name, and labels and values by the name of the line."""
    kinds: dict[str, str] = {}
    values: dict[str, list[tuple[str, float]]] = {}
    page: str = until(f"metrics of {member.name}", lambda: member.fetch("/metrics"))
    for line in page.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            kinds[name] = kind
        elif found := LINE.fullmatch(line):
            values.setdefault(found[1], []).append((found[2] or "", float(found[3])))
    return kinds, values


def metrics(side: Side) -> tuple[dict[str, str], dict[str, list[tuple[str, float]]]]:
    """Those of its first member."""
    return metrics_of(side.members.members[0])


def described(side: Side, name: str) -> tuple[str, frozenset[str], list[str]]:
    """A metric's kind, the names of its labels, and a histogram's limits."""
    kinds, values = metrics(side)
    assert name in kinds, f"{side.peer.name} has no {name}"
    lines = values.get(f"{name}_bucket" if kinds[name] == "histogram" else name, [])
    assert lines, f"{side.peer.name} has no line of {name}"
    labels = frozenset(re.findall(r'(\w+)="', lines[0][0]))
    limits = sorted({limit for text, _ in lines for limit in re.findall(r'le="([^"]+)"', text)})
    return kinds[name], labels, limits


def has(etcd: Side, name: str) -> bool:
    """Whether an etcd of this version is to have it."""
    return version(etcd.peer) >= SINCE.get(name, (3, 4))


def first(side: Side, name: str, label: str = "") -> float:
    return sum(value for text, value in metrics(side)[1].get(name, []) if label in text)


def test_what_the_dashboard_needs_is_there(three: Beside) -> None:
    for side in (*three.etcds, three.ours):
        side.call("KV/Put", {"key": "applied"})
        side.call("KV/Range", {"key": "applied"}, at=side.members.members[0].name)
        until("a measured way", lambda s=side: first(s, "etcd_network_peer_round_trip_time_seconds_count") > 0)
    differ = [
        (name, etcd.peer.name, theirs, mine)
        for etcd in three.etcds
        for name in (*NEEDED, *BESIDE)
        if has(etcd, name) and (theirs := described(etcd, name)) != (mine := described(three.ours, name))
    ]
    assert not differ


def test_what_happens_is_counted(three: Beside) -> None:
    ours = three.ours
    names = (
        "etcd_disk_wal_fsync_duration_seconds_count",
        "etcd_network_client_grpc_received_bytes_total",
        "etcd_network_client_grpc_sent_bytes_total",
    )
    before = {name: first(ours, name) for name in names}
    label = 'grpc_method="Put"'

    def puts() -> list[float]:
        return [first(ours, f"grpc_server_{name}_total", label) for name in ("started", "handled", "msg_sent")]

    wanted = [count + 1 for count in puts()]
    ours.call("KV/Put", {"key": "k", "value": "v" * 10_000}, at=ours.members.members[0].name)
    until(f"{wanted} puts, not {puts()}", lambda: puts() == wanted)
    after = {name: first(ours, name) for name in names}
    assert after[names[0]] > before[names[0]]
    assert after[names[1]] - before[names[1]] > 10_000
    assert after[names[2]] > before[names[2]]
    opened = first(ours, "grpc_server_started_total", 'grpc_method="Watch"')
    ours.foreign.do("open", at=ours.address("m0"), stream="w", method="Watch/Watch", metadata={})
    ours.foreign.do("send", stream="w", request={"create_request": {"key": "k"}})
    ours.foreign.do("take", stream="w", responses=1, events=0, end=False)
    label = 'grpc_method="Watch"'
    assert first(ours, "grpc_server_started_total", label) == opened + 1
    assert first(ours, "grpc_server_msg_received_total", label) >= 1
    assert first(ours, "grpc_server_msg_sent_total", label) >= 1
    ours.foreign.do("reset")


LEASES = tuple(f"etcd_debugging_lease_{kind}_total" for kind in ("granted", "revoked", "renewed"))
EXPIRED = "etcd_debugging_server_lease_expired_total"
EVENTS = "etcd_debugging_mvcc_events_total"
APPLIED = f"{APPLY_DURATION}_count"


APPLIED_KINDS = {
    f"{op} {success}": (f'op="{op}"', f'success="{success}"')
    for op in ("Put", "LeaseGrant", "LeaseRevoke", "Txn")
    for success in ("true", "false")
}
"""Changes that were applied, by kind and success, and the labels of each."""


def counted(side: Side) -> dict[str, float]:
    """What its leader counts while leases, changes and events come and go."""
    leader = side.members.leader()
    at = leader.name

    def values() -> dict[str, float]:
        found = metrics_of(leader)[1]
        applied = {
            kind: sum(value for labels, value in found.get(APPLIED, []) if all(one in labels for one in wanted))
            for kind, wanted in APPLIED_KINDS.items()
        }
        return {name: found[name][0][1] for name in (*LEASES, EXPIRED, EVENTS)} | applied

    before = values()
    side.foreign.do("open", at=side.address(at), stream="w", method="Watch/Watch", metadata={})
    side.foreign.do("send", stream="w", request={"create_request": {"key": "counted"}})
    side.foreign.do("take", stream="w", responses=1, events=0, end=False)
    for number, ttl in ((7001, 1), (7002, 600), (7002, 600)):
        side.call("Lease/LeaseGrant", {"ID": number, "TTL": ttl}, at=at)
    side.foreign.do("open", at=side.address(at), stream="k", method="Lease/LeaseKeepAlive", metadata={})
    side.foreign.do("send", stream="k", request={"ID": 7002})
    side.foreign.do("take", stream="k", responses=1, events=0, end=False)
    for value in ("1", "2", "3"):
        side.call("KV/Put", {"key": "counted", "value": value}, at=at)
    side.foreign.do("take", stream="w", responses=0, events=3, end=False)
    side.call("Lease/LeaseRevoke", {"ID": 7002}, at=at)
    until("the end of a lease", lambda: values()[EXPIRED] > before[EXPIRED])
    side.foreign.do("reset")
    return {name: value - before[name] for name, value in values().items()}


def test_leases_changes_and_events_are_counted_as_etcd_does(three: Beside) -> None:
    ours = counted(three.ours)
    for etcd in three.etcds:
        names = ours if has(etcd, APPLY_DURATION) else ours.keys() - APPLIED_KINDS
        theirs = counted(etcd)
        assert {name: ours[name] for name in names} == {name: theirs[name] for name in names}, etcd.peer.name
    assert ours[EVENTS] == ours["Put true"] == 3
    assert ours[LEASES[0]] == ours[LEASES[1]] == 2


WORKS = {
    "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count": 1,
    "etcd_debugging_mvcc_db_compaction_keys_total": 3,
    "etcd_mvcc_hash_duration_seconds_count": 1,
    "etcd_mvcc_hash_rev_duration_seconds_count": 2,
    "etcd_disk_backend_defrag_duration_seconds_count": 1,
    "etcd_disk_backend_snapshot_duration_seconds_count": 1,
}
"""How often works are counted that `worked` does."""


def worked(side: Side, directory: Path) -> dict[str, float]:
    """What its only member counts of a compaction of three changes, sums, a defragmentation and a snapshot."""
    name = side.peer.name.replace(" ", "-")
    before = {name: first(side, name) for name in WORKS}
    base = int(side.call("KV/Put", {"key": "worked"})["response"]["header"]["revision"])
    for _ in range(3):
        side.call("KV/Put", {"key": "worked"})
    side.call("KV/Compact", {"revision": base + 3, "physical": True})
    side.call("Maintenance/Hash")
    side.call("KV/Put", {"key": "worked"})
    # Of the compaction's own revision etcd has noted the sum.
    for _ in range(2):
        side.call("Maintenance/HashKV", {"revision": base + 4})
    side.call("Maintenance/Defragment")
    side.members.ctl("snapshot", "save", str(directory / f"{name}.db"))
    if side.peer.name == "ours" or has(side, LAST_COMPACTION):
        assert abs(first(side, LAST_COMPACTION) - time.time()) < 60
        # Etcd 3.4 counts no pause of a compaction that is done in one go.
        assert first(side, "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds_count") >= 1
    assert first(side, "etcd_disk_defrag_inflight") == 0
    return {name: first(side, name) - value for name, value in before.items()}


def test_long_works_are_timed(tmp_path: Path) -> None:
    for sides in beside(1, tmp_path / "sides"):
        for side in (*sides.etcds, sides.ours):
            assert worked(side, tmp_path) == WORKS, side.peer.name


def test_one_of_many_requests_counts_for_all(three: Beside) -> None:
    ours = three.ours
    name, at = "etcd_server_request_duration_seconds_count", ours.members.members[0].name

    def put(**said: str) -> float:
        labels = ['type="Put"', *(f'{key}="{value}"' for key, value in said.items())]
        lines = metrics(ours)[1].get(name, [])
        return sum(value for text, value in lines if all(label in text for label in labels))

    before = put(success="true")
    for number in range(160):
        ours.call("KV/Put", {"key": str(number)}, at=at)
    assert put(success="true") - before == 160
    failed = put(success="false")
    for _ in range(16):
        ours.call("KV/Put", {"key": "k", "lease": 4711}, at=at)
    assert put(success="false") - failed == 16
    ranges = first(ours, "etcd_server_range_duration_seconds_count", 'success="true"')
    for _ in range(32):
        ours.call("KV/Range", {"key": "k"}, at=at)
    assert first(ours, "etcd_server_range_duration_seconds_count", 'success="true"') - ranges == 32


def timed(side: Side) -> tuple[list[float], list[float]]:
    """How many puts and watches were timed, after five puts and while a watch goes on; and after its end."""
    for number in range(5):
        side.call("KV/Put", {"key": str(number)})
    side.foreign.do("open", at=side.address("m0"), stream="w", method="Watch/Watch", metadata={})
    side.foreign.do("send", stream="w", request={"create_request": {"key": "k"}})
    side.foreign.do("take", stream="w", responses=1, events=0, end=False)
    put = 'grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"'
    watch = 'grpc_service="etcdserverpb.Watch"'
    assert 0 < first(side, f"{HANDLING}_sum", put) < 60, side.peer.name
    going_on = [first(side, f"{HANDLING}_bucket", f'{put},le="+Inf"'), first(side, f"{HANDLING}_count", watch)]
    side.foreign.do("reset")
    until("the end of a stream", lambda: first(side, f"{HANDLING}_count", watch) > 0)
    return going_on, [first(side, f"{HANDLING}_count", one) for one in (put, watch)]


def test_extensive_metrics_have_the_time_of_calls(tmp_path_factory: pytest.TempPathFactory) -> None:
    for sides in beside(1, tmp_path_factory.mktemp("extensive"), ["--metrics=extensive"]):
        for side in (*sides.etcds, sides.ours):
            assert timed(side) == ([5, 0], [5, 1]), side.peer.name
            assert described(side, HANDLING) == described(sides.ours, HANDLING), side.peer.name
