"""Etcd's hashes of the keys: the same history gives the same value at a real etcd and at ours, at every revision."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks import peers
from tests.conformance.etcd.side import FOREIGN, Foreign, version
from tests.conformance.members import Members, etcdctl_path

pytestmark = pytest.mark.skipif(
    etcdctl_path() is None or not FOREIGN.is_file(), reason="etcdctl or the foreign client is not here: run make setup"
)
LEASE = 4711
NOTED_SINCE = (3, 5)
"""Since then etcd answers for the revision of a compaction, until a restart with what it noted then: see
docs/etcd-differences.md."""


class Store:
    """One member, and calls to it."""

    def __init__(self, peer: peers.Peer, directory: Path) -> None:
        self.peer = peer
        extra = [] if peer.name == "ours" else list(peer.quiet)
        self.members = Members(directory, 1, extra, peer.command)
        self.foreign = Foreign(directory / "foreign.log")

    def close(self) -> None:
        self.foreign.close()
        self.members.close()

    def call(self, method: str, **request: Any) -> dict[str, Any]:
        at = self.members.members[0].client_url.removeprefix("http://")
        return self.foreign.do("call", at=at, method=method, request=request, metadata={})

    def done(self, method: str, **request: Any) -> dict[str, Any]:
        """The answer of a call that must not fail."""
        answer = self.call(method, **request)
        assert "response" in answer, answer
        found: dict[str, Any] = answer["response"]
        return found

    def hash(self, revision: int = 0) -> dict[str, Any]:
        """Hash and compacted revision up to a revision, or the refusal."""
        answer = self.call("Maintenance/HashKV", revision=revision)
        if "response" not in answer:
            return answer
        found = answer["response"]
        return {name: found.get(name, 0) for name in ("hash", "compact_revision")}

    def revision(self) -> int:
        return int(self.done("KV/Range", key="x")["header"]["revision"])

    def compact(self, revision: int) -> None:
        self.done("KV/Compact", revision=revision, physical=True)


@pytest.fixture(params=["debian", "newest"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    """A fresh etcd, and a fresh one of ours."""
    if request.param == "newest":
        etcd, why = peers.newest()
    else:
        etcd = next((peer for peer in peers.find(with_newest=False)[0] if peer.name != "ours"), None)
        why = "there is no etcd of Debian's: run make setup"
    if etcd is None:
        pytest.skip(why)
    with ExitStack() as stack:
        stores = []
        for peer in (etcd, peers.ours()):
            stores.append(Store(peer, tmp_path / peer.name.split()[0]))
            stack.callback(stores[-1].close)
            stores[-1].members.start()
        yield stores[0], stores[1]


def put(store: Store, key: str, value: str, lease: int = 0) -> None:
    store.done("KV/Put", key=key, value=value, lease=lease)


def first(store: Store) -> None:
    """Puts, deletions, a lease that ends with its keys, transactions of many keys."""
    store.done("Lease/LeaseGrant", ID=LEASE, TTL=5000)
    for number in range(3):
        put(store, "a/old", str(number))
    put(store, "a/gone", "1")
    put(store, "a/leased", "1", LEASE)
    put(store, "a/alone", "1")
    store.done("KV/DeleteRange", key="a/gone")
    puts = [{"request_put": {"key": f"b/{number:03}", "value": "v" * number * 7}} for number in range(50)]
    store.done("KV/Txn", success=puts)
    put(store, "a/old", "last")
    store.done("KV/DeleteRange", key="b/010", range_end="b/020")


def second(store: Store) -> None:
    """What comes after a compaction: old keys again, and everything deleted in the end."""
    put(store, "a/gone", "again")
    store.done("Lease/LeaseRevoke", ID=LEASE)
    mixed = [{"request_put": {"key": "c/1", "value": ""}}, {"request_delete_range": {"key": "a/old"}}]
    store.done("KV/Txn", success=mixed)
    store.done("KV/DeleteRange", key="\0", range_end="\0")


def same(pair: tuple[Store, Store], but: Sequence[int] = ()) -> None:
    """Compare every revision, and those just outside, but those of compactions."""
    etcd, ours = pair
    now = ours.revision()
    assert etcd.revision() == now
    assert etcd.hash() == ours.hash()
    for revision in range(-1, now + 2):
        if revision not in but:
            assert etcd.hash(revision) == ours.hash(revision), f"at {revision} of {now}"


def test_the_same_history_has_the_same_hashes(pair: tuple[Store, Store]) -> None:
    same(pair)
    for store in pair:
        first(store)
    same(pair)
    deletion = pair[0].revision()
    for store in pair:
        store.compact(deletion)
    same(pair, but=[deletion])
    for store in pair:
        second(store)
    same(pair, but=[deletion])
    before = pair[1].hash()
    for store in pair:
        store.members.members[0].stop()
        store.members.start()
    assert pair[1].hash() == before
    same(pair, but=[] if version(pair[0].peer) >= NOTED_SINCE else [deletion])
    last = pair[0].revision()
    for store in pair:
        store.compact(last - 1)
    same(pair, but=[last - 1])
    for store in pair:
        store.compact(last)
    same(pair, but=[last - 1, last])


def test_members_hash_alike(tmp_path: Path) -> None:
    members = Members(tmp_path / "m", 3)
    foreign = Foreign(tmp_path / "foreign.log")
    try:
        members.start()
        for number in range(20):
            members.ctl("put", f"k{number % 7}", str(number))
        members.ctl("compact", "9")
        members.ctl("put", "k1", "last")
        urls = [one.client_url for one in members.members]
        for one in members.members:
            members.ctl("get", "k1", at=[one])
        answers = json.loads(members.ctl("endpoint", "hashkv", "-w", "json"))
        assert [one["Endpoint"] for one in answers] == urls
        assert len({one["HashKV"]["hash"] for one in answers}) == 1
        assert {one["HashKV"]["compact_revision"] for one in answers} == {9}
        everything = [
            foreign.do("call", at=url.removeprefix("http://"), method="Maintenance/Hash", request={}, metadata={})
            for url in urls
        ]
        assert len({one["response"]["hash"] for one in everything}) == 1
    finally:
        foreign.close()
        members.close()
