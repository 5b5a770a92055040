"""The asyncio client of any etcd v3 cluster. Connections, retries, fail-over and resumed watches are native
(`kvstore/src/client`); this turns numbers of native calls into awaitables.

A call raises a `kvstore.errors.StoreError`. Reads are retried on other endpoints; a write is only when it certainly
was not sent. Cancelling a call cancels it on the wire.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from kvstore._core import NativeClient
from kvstore.errors import StoreError, of_status
from kvstore.model import (
    Compare,
    DeleteResult,
    Header,
    KeyValue,
    LeaseGrant,
    LeaseTimeToLive,
    Member,
    Members,
    Op,
    PutResult,
    RangeResult,
    Sort,
    Status,
    TxnResult,
)
from kvstore.watching import Watch

__all__ = ["Client", "Watch", "prefix_end"]


def prefix_end(prefix: bytes) -> bytes:
    """The range end that with `prefix` as key means all keys that begin with it."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\0"


class Client:
    """One per event loop, and used from there alone. `timeout` bounds each call, in seconds."""

    def __init__(self, endpoints: Sequence[str], *, timeout: float = 5.0) -> None:
        self._native = NativeClient(list(endpoints), timeout)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._watches: dict[int, Watch] = {}
        self._closed = False

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End every call and watch with an error, and all connections."""
        if self._closed:
            return
        self._closed = True
        self._native.close()
        if self._loop is not None:
            self._loop.remove_reader(self._native.fileno())
        error = StoreError("cancelled", "The store client is closed.")
        for future in self._calls.values():
            if not future.done():
                future.set_exception(error)
        for watch in self._watches.values():
            watch.fail(error)
        self._calls.clear()
        self._watches.clear()

    def set_endpoints(self, endpoints: Sequence[str]) -> None:
        """Replace the endpoints; calls and watches go on."""
        self._native.set_endpoints(list(endpoints))

    def _ready(self) -> asyncio.AbstractEventLoop:
        if self._closed:
            raise StoreError("cancelled", "The store client is closed.")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._native.fileno(), self._drain)
        return self._loop

    def _drain(self) -> None:
        for number, kind, value in self._native.drain():
            future = self._calls.pop(number, None)
            if future is not None:
                if future.done():
                    continue
                if kind == "error":
                    future.set_exception(of_status(*value))
                else:
                    future.set_result(value)
                continue
            watch = self._watches.get(number)
            if watch is not None and watch.take(kind, value):
                self._watches.pop(number, None)

    async def _answer(self, number: int) -> Any:
        future: asyncio.Future[Any] = self._ready().create_future()
        self._calls[number] = future
        try:
            return await future
        finally:
            if self._calls.pop(number, None) is not None:
                self._native.cancel(number)

    async def _operate(self, op: Op) -> Any:
        self._ready()
        return await self._answer(self._native.operate(op))

    async def get(
        self,
        key: bytes,
        *,
        range_end: bytes = b"",
        limit: int = 0,
        revision: int = 0,
        serializable: bool = False,
        keys_only: bool = False,
        count_only: bool = False,
        sort: Sort | None = None,
        min_mod_revision: int = 0,
        max_mod_revision: int = 0,
        min_create_revision: int = 0,
        max_create_revision: int = 0,
    ) -> RangeResult:
        """Read a key or a range, linearizably unless `serializable`."""
        op = Op.get(
            key,
            range_end=range_end,
            limit=limit,
            revision=revision,
            serializable=serializable,
            keys_only=keys_only,
            count_only=count_only,
            sort=sort,
            min_mod_revision=min_mod_revision,
            max_mod_revision=max_mod_revision,
            min_create_revision=min_create_revision,
            max_create_revision=max_create_revision,
        )
        return _range(await self._operate(op))

    async def put(
        self,
        key: bytes,
        value: bytes,
        *,
        lease: int = 0,
        prev_kv: bool = False,
        ignore_value: bool = False,
        ignore_lease: bool = False,
    ) -> PutResult:
        """Set a key. After Unavailable it may be set or not."""
        op = Op.put(key, value, lease, prev_kv=prev_kv, ignore_value=ignore_value, ignore_lease=ignore_lease)
        return _put(await self._operate(op))

    async def delete(self, key: bytes, *, range_end: bytes = b"", prev_kv: bool = False) -> DeleteResult:
        """Delete a key or a range."""
        return _delete(await self._operate(Op.delete(key, range_end=range_end, prev_kv=prev_kv)))

    async def txn(self, compare: Sequence[Compare], success: Sequence[Op], failure: Sequence[Op] = ()) -> TxnResult:
        """Run `success` when every comparison holds, else `failure`; all at one revision."""
        return _txn(await self._operate(Op.txn(tuple(compare), tuple(success), tuple(failure))))

    async def compact(self, revision: int, physical: bool = False) -> Header:
        """Forget what was before a revision."""
        self._ready()
        return Header(*await self._answer(self._native.compact(revision, physical)))

    def watch(
        self,
        key: bytes,
        *,
        range_end: bytes = b"",
        start_revision: int = 0,
        prev_kv: bool = False,
        progress_notify: bool = False,
    ) -> Watch:
        """Watch a key or a range, from a revision or from now on; see Watch."""
        return Watch(self, (key, range_end, start_revision, prev_kv, progress_notify))

    def open_watch(self, watch: Watch, options: tuple[bytes, bytes, int, bool, bool]) -> int:
        """For Watch alone."""
        self._ready()
        number = self._native.watch(*options)
        self._watches[number] = watch
        return number

    def took(self, number: int) -> None:
        """For Watch alone."""
        self._native.more(number)

    def close_watch(self, number: int) -> None:
        """For Watch alone."""
        self._watches.pop(number, None)
        self._native.cancel(number)

    async def lease_grant(self, ttl: int, id: int = 0) -> LeaseGrant:
        """A lease of `ttl` seconds; the store chooses an id unless one is given."""
        self._ready()
        return LeaseGrant(*await self._answer(self._native.lease_grant(ttl, id)))

    async def lease_revoke(self, id: int) -> None:
        """End a lease and delete its keys. Raises LeaseNotFound."""
        self._ready()
        await self._answer(self._native.lease_revoke(id))

    async def lease_keepalive(self, id: int) -> int:
        """Renew a lease once; its TTL in seconds. Raises LeaseNotFound."""
        self._ready()
        ttl: int = await self._answer(self._native.lease_keepalive(id))
        if ttl <= 0:
            raise of_status(5, "etcdserver: requested lease not found")
        return ttl

    async def lease_time_to_live(self, id: int, keys: bool = False) -> LeaseTimeToLive:
        """What is left of a lease, and with `keys` what hangs on it."""
        self._ready()
        lease, ttl, granted, held = await self._answer(self._native.lease_time_to_live(id, keys))
        return LeaseTimeToLive(lease, ttl, granted, tuple(held))

    async def leases(self) -> tuple[int, ...]:
        """The ids of all leases."""
        self._ready()
        return tuple(await self._answer(self._native.leases()))

    async def member_list(self, linearizable: bool = True) -> Members:
        """Who is a member."""
        self._ready()
        return _members(await self._answer(self._native.member_list(linearizable)))

    async def member_add(self, peer_urls: Sequence[str], learner: bool = False) -> Members:
        """Add a member; its id is the result's `subject`."""
        self._ready()
        return _members(await self._answer(self._native.member_add(list(peer_urls), learner)))

    async def member_remove(self, id: int) -> Members:
        """Remove a member."""
        self._ready()
        return _members(await self._answer(self._native.member_remove(id)))

    async def member_update(self, id: int, peer_urls: Sequence[str]) -> Members:
        """Change a member's peer URLs."""
        self._ready()
        return _members(await self._answer(self._native.member_update(id, list(peer_urls))))

    async def member_promote(self, id: int) -> Members:
        """Make a learner that has caught up a voter."""
        self._ready()
        return _members(await self._answer(self._native.member_promote(id)))

    async def status(self, endpoint: str) -> Status:
        """Ask one endpoint about itself; it need not be one of the client's."""
        self._ready()
        head, version, raft, sizes, learner, errors = await self._answer(self._native.status(endpoint))
        leader, term, index, applied = raft
        size, used = sizes
        header = Header(*head)
        return Status(header, version, leader, term, index, applied, size, used, learner, tuple(errors))


def _kv(value: Any) -> KeyValue | None:
    return None if value is None else KeyValue(*value)


def _range(value: Any) -> RangeResult:
    header, kvs, more, count = value
    return RangeResult(Header(*header), tuple(KeyValue(*kv) for kv in kvs), more, count)


def _put(value: Any) -> PutResult:
    return PutResult(Header(*value[0]), _kv(value[1]))


def _delete(value: Any) -> DeleteResult:
    header, deleted, prev = value
    return DeleteResult(Header(*header), deleted, tuple(KeyValue(*kv) for kv in prev))


def _txn(value: Any) -> TxnResult:
    header, succeeded, responses = value
    return TxnResult(Header(*header), succeeded, tuple(_RESULTS[kind](one) for kind, one in responses))


def _members(value: Any) -> Members:
    header, subject, members = value
    return Members(
        Header(*header),
        subject,
        tuple(Member(id, name, tuple(peers), tuple(clients), learner) for id, name, peers, clients, learner in members),
    )


_RESULTS: dict[str, Any] = {"get": _range, "put": _put, "delete": _delete, "txn": _txn}
