"""The asyncio client against real members: values, errors, watches that resume, fail-over, cancellation."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from benchmarks.ports import free_port
from kvstore.client import Client, prefix_end
from kvstore.errors import Compacted, LeaseNotFound, StoreError, TooLarge, Unavailable, of_status
from kvstore.model import Compare, Op, RangeResult, TxnResult
from tests.unit.kvstore.members import Cluster

MEMBERS = 3


@pytest_asyncio.fixture
async def client(cluster: Cluster) -> AsyncIterator[Client]:
    async with Client(cluster.endpoints) as made:
        yield made


def test_prefix_end() -> None:
    assert [prefix_end(key) for key in (b"a", b"a\xff", b"\xff", b"")] == [b"b", b"b", b"\0", b"\0"]


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (14, "etcdserver: request timed out", Unavailable),
        (4, "context deadline exceeded", Unavailable),
        (1, "operation was canceled", Unavailable),
        (2, "transport error", Unavailable),
        (13, "h2 protocol error: http2 error", Unavailable),
        (2, "etcdserver: something new", StoreError),
        (3, "etcdserver: request is too large", TooLarge),
        (5, "etcdserver: requested lease not found", LeaseNotFound),
    ],
)
def test_what_may_have_happened_is_told_from_what_the_store_refused(
    code: int, message: str, kind: type[StoreError]
) -> None:
    assert type(of_status(code, message)) is kind


async def test_values(client: Client) -> None:
    first = await client.put(b"v/a", b"1")
    second = await client.put(b"v/a", b"2", prev_kv=True)
    assert second.prev is not None and second.prev.value == b"1"
    assert second.header.revision == first.header.revision + 1
    await client.put(b"v/b", b"3")
    found = await client.get(b"v/", range_end=prefix_end(b"v/"), limit=1, sort=("key", True))
    assert [kv.key for kv in found.kvs] == [b"v/b"] and found.more and found.count == 2
    old = await client.get(b"v/a", revision=first.header.revision)
    assert old.kvs[0].value == b"1"
    gone = await client.delete(b"v/", range_end=prefix_end(b"v/"), prev_kv=True)
    assert gone.deleted == 2 and [kv.value for kv in gone.prev] == [b"2", b"3"]


async def test_txn(client: Client) -> None:
    done = await client.txn([Compare.version(b"t", "=", 0)], [Op.put(b"t", b"x"), Op.get(b"t")], [Op.get(b"t")])
    assert done.succeeded
    read = done.responses[1]
    assert isinstance(read, RangeResult) and read.kvs[0].value == b"x"
    inner = Op.txn((Compare.value(b"t", "=", b"x"),), (Op.delete(b"t"),))
    done = await client.txn([Compare.create(b"t", ">", 0)], [inner])
    assert isinstance(done.responses[0], TxnResult) and done.responses[0].succeeded
    with pytest.raises(StoreError, match="duplicate key"):
        await client.txn([], [Op.put(b"t", b"1"), Op.put(b"t", b"2")])


@pytest.mark.parametrize("ours", [True, False], ids=["ours", "etcd"])
async def test_limits(tmp_path: Path, ours: bool) -> None:
    """The same words and codes from etcd and from us, also over what gRPC itself lets through (1.5 MiB + 512 KiB)."""
    cluster = Cluster(tmp_path, 1, ours=ours)
    try:
        async with Client(cluster.endpoints, timeout=20) as client:
            mebi = 1 << 20
            await client.put(b"k", bytes(mebi + mebi // 2 - 100))
            for size, code, words in (
                (mebi + mebi // 2, "invalid_argument", "etcdserver: request is too large"),
                (2 * mebi - 100, "invalid_argument", "etcdserver: request is too large"),
                (2 * mebi, "resource_exhausted", "grpc: received message larger than max (2097160 vs. 2097152)"),
                (8 * mebi, "resource_exhausted", "grpc: received message larger than max"),
            ):
                with pytest.raises(TooLarge) as caught:
                    await client.put(b"k", bytes(size))
                assert caught.value.code == code and words in str(caught.value), size
            puts = [Op.put(b"%d" % at, b"") for at in range(129)]
            assert (await client.txn([], puts[:128])).succeeded
            for ops, words in (
                (puts, "etcdserver: too many operations in txn request"),
                ([Op.put(b"a", b"1"), Op.put(b"a", b"2")], "etcdserver: duplicate key given in txn request"),
                ([Op.put(b"a", b"1"), Op.delete(b"a")], "etcdserver: duplicate key given in txn request"),
            ):
                with pytest.raises(StoreError) as refused:
                    await client.txn([], ops)
                assert refused.value.code == "invalid_argument" and str(refused.value) == words
            assert (await client.get(b"k")).kvs[0].version == 1
    finally:
        cluster.close()


async def test_each_sibling_counts_its_own_requests_those_in_transactions_included(client: Client) -> None:
    other = client.sibling()
    await other.put(b"n", b"")
    await other.get(b"n")
    inner = Op.txn((), (Op.get(b"n"),), (Op.get(b"n"), Op.delete(b"n")))
    await other.txn([Compare.version(b"n", ">", 0)], [inner], [Op.put(b"n", b"")])
    async with other.watch(b"n"):
        await other.lease_list()
    assert other.requests == {"put": 2, "range": 3, "txn": 2, "delete_range": 1, "watch": 1, "leases": 1}
    assert not client.requests
    await client.get(b"n")
    assert client.requests == {"range": 1} and other.requests["range"] == 3


async def test_leases(client: Client) -> None:
    grant = await client.lease_grant(60)
    await client.put(b"l", b"", lease=grant.id)
    assert (await client.lease_keepalive(grant.id)).ttl == 60
    assert (await client.lease_time_to_live(grant.id, keys=True)).keys == (b"l",)
    assert grant.id in (await client.lease_list()).ids
    await client.lease_revoke(grant.id)
    assert not (await client.get(b"l")).kvs
    with pytest.raises(LeaseNotFound):
        await client.lease_keepalive(grant.id)
    with pytest.raises(LeaseNotFound):
        await client.put(b"l", b"", lease=grant.id)


async def test_members_and_status(client: Client, cluster: Cluster) -> None:
    members = await client.member_list()
    async with asyncio.timeout(60):
        while {one.name for one in members.members} != {"m0", "m1", "m2"}:  # each tells its name once it runs
            await asyncio.sleep(0.05)
            members = await client.member_list()
    status = await client.status(cluster.endpoints[0])
    assert status.member_id in {one.id for one in members.members} and status.leader


async def test_watch_and_compaction(client: Client) -> None:
    async with client.watch(b"w/", range_end=prefix_end(b"w/")) as watch:
        put = await client.put(b"w/a", b"1")
        await client.txn([], [Op.delete(b"w/a"), Op.put(b"w/b", b"2")])
        seen = []
        async for batch in watch:
            seen += [(event.type, event.kv.key, event.kv.mod_revision) for event in batch.events]
            if len(seen) == 3:
                break
    first = put.header.revision
    assert seen[0] == ("put", b"w/a", first)
    assert sorted(seen[1:]) == [("delete", b"w/a", first + 1), ("put", b"w/b", first + 1)]
    await client.compact(first + 1)
    with pytest.raises(Compacted) as caught:
        async with client.watch(b"w/", start_revision=1) as watch:
            await anext(watch)
    assert caught.value.revision == first + 1


async def test_cancelling_leaves_nothing(client: Client, cluster: Cluster) -> None:
    async with client.watch(b"never") as watch:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await anext(watch)
    call = asyncio.create_task(client.put(b"c", b""))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert client._calls.in_flight() == 0


async def test_nobody_there() -> None:
    async with Client([f"http://127.0.0.1:{free_port()}"], timeout=0.5) as client:
        begin = time.monotonic()
        with pytest.raises(Unavailable):
            await client.put(b"a", b"")
        assert time.monotonic() - begin < 4, "a client's own time is longer"


async def test_an_impatient_call_ends_when_every_endpoint_refuses(cluster: Cluster) -> None:
    nobody = [f"http://127.0.0.1:{free_port()}" for _ in range(3)]
    async with Client(nobody, timeout=60, patient=False) as client, asyncio.timeout(20):
        for call in (client.get(b"a"), client.put(b"a", b""), client.lease_keepalive(1)):
            with pytest.raises(Unavailable, match="Connection refused"):
                await call
        client.set_endpoints([*nobody, *cluster.endpoints])
        await client.put(b"g", b"1")


async def test_a_dead_endpoint_is_passed_over_by_writes(cluster: Cluster) -> None:
    async with Client([f"http://127.0.0.1:{free_port()}", *cluster.endpoints]) as client:
        await client.put(b"f", b"1")


async def test_a_port_that_only_accepts_is_passed_over_and_gets_no_write(cluster: Cluster) -> None:
    """A member that starts has its port open before it serves; what is sent there may be carried out later."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        async with Client([url, *cluster.endpoints]) as client:
            await client.put(b"deaf", b"1")
            assert (await client.get(b"deaf")).kvs[0].version == 1
        async with Client([url], timeout=2) as client:
            begin = time.monotonic()
            with pytest.raises(Unavailable, match="does not serve"):
                await client.put(b"deaf", b"2")
            assert 1.9 < time.monotonic() - begin < 4.9
        deaf.settimeout(20)
        heard, _ = deaf.accept()
        with heard:
            preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            assert heard.recv(1 << 16) == preface + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("ours", [True, False], ids=["ours", "etcd"])
async def test_calls_wait_for_a_leader_and_say_when_there_is_none(tmp_path: Path, ours: bool) -> None:
    """Two of three members die: a call tries until its time is over, and one with time enough sees the leader come."""
    cluster = Cluster(tmp_path, 3, ours=ours)
    try:
        async with Client(cluster.endpoints, timeout=30) as client:
            await client.put(b"k", b"1")
        for at in (1, 2):
            cluster.kill(at)
        async with Client(cluster.endpoints, timeout=3) as client, asyncio.timeout(60):
            seen = ""
            while "no leader" not in seen:  # what is under way when the leader goes may also time out
                begin = time.monotonic()
                with pytest.raises(Unavailable) as caught:
                    await client.put(b"k", b"lost")
                seen = str(caught.value)
            assert seen == "etcdserver: no leader" and 2.9 < time.monotonic() - begin < 10
            with pytest.raises(Unavailable, match="etcdserver: no leader"):
                await client.get(b"k")
            assert (await client.get(b"k", serializable=True)).kvs[0].value == b"1"
        async with Client(cluster.endpoints, timeout=30) as client:
            before = (await client.get(b"k", serializable=True)).header.revision
            put = asyncio.create_task(client.put(b"later", b"1"))
            await asyncio.sleep(0.5)
            assert not put.done()
            cluster.restart(1)
            done = await put
            assert (await client.get(b"later")).kvs[0].version == 1 and done.header.revision > before
    finally:
        cluster.close()


async def test_a_stopped_member_is_left_without_gap_or_repeat(cluster: Cluster) -> None:
    """The watch hangs on a follower that is stopped; writes go on through the others."""
    async with Client(cluster.endpoints) as client:
        status = [await client.status(endpoint) for endpoint in cluster.endpoints]
        victim = next(at for at, one in enumerate(status) if one.leader != one.member_id)
        order = [cluster.endpoints[victim], *(one for at, one in enumerate(cluster.endpoints) if at != victim)]
        async with (
            Client(order) as watcher,
            Client(order[1:]) as writer,
            watcher.watch(b"s/", range_end=prefix_end(b"s/")) as watch,
        ):
            await writer.put(b"s/0", b"")
            seen = [event.kv.key for event in (await anext(watch)).events]
            cluster.processes[victim].send_signal(signal.SIGSTOP)
            try:
                for at in range(1, 50):
                    await writer.put(b"s/%d" % at, b"")
                async with asyncio.timeout(20):  # without an end where it stays with the one that is stopped
                    while len(seen) < 50:
                        seen += [event.kv.key for event in (await anext(watch)).events]
            finally:
                cluster.processes[victim].send_signal(signal.SIGCONT)
            assert seen == [b"s/%d" % at for at in range(50)]
