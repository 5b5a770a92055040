"""The asyncio client of any etcd v3 cluster. Connections, retries, fail-over and resumed watches are native
(`kvstore/src/client`), awaiting them is in `calls`; this is what a program calls.

A call raises a `kvstore.errors.StoreError`. Reads are retried on other endpoints; a write is only when it certainly
was not sent. Cancelling a call cancels it on the wire.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from kvstore import messages, wire
from kvstore._core import NativeClient
from kvstore.calls import Calls
from kvstore.errors import of_status
from kvstore.model import (
    Compare,
    DeleteResult,
    Header,
    KeyValue,
    LeaseGrant,
    Leases,
    LeaseTimeToLive,
    Login,
    Member,
    Members,
    Op,
    PutResult,
    RangeResult,
    Sort,
    Status,
    TxnResult,
)
from kvstore.tls import Tls
from kvstore.watching import Watch

__all__ = ["Client", "Watch", "prefix_end"]


def prefix_end(prefix: bytes) -> bytes:
    """The range end that with `prefix` as key means all keys that begin with it."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\0"


class Client:
    """One per event loop, and used from there alone. `timeout` bounds each call, in seconds. A call that is not
    `patient` ends when every endpoint has refused a connection; watches always are. Endpoints are `host:port` or URLs:
    `http://`, `https://`, `unix:///path`, `unixs:///path`. `login` is a user's name and password, or an empty name and
    a token, for a store with authentication. `limits`: bytes of the largest message that is sent, and of the largest
    that is taken."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        timeout: float = 5.0,
        patient: bool = True,
        tls: Tls | None = None,
        login: Login | None = None,
        limits: tuple[int, int] | None = None,
    ) -> None:
        self._calls = Calls(endpoints, timeout, patient, tls, login, limits)
        self.requests: Counter[str] = Counter()
        """Requests so far by kind (`range`, `put`, `txn` ...), each once however often it was tried. A transaction
        counts itself and the operations in both of its branches."""

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def sibling(self) -> Client:
        """A client on the same connections that counts its own requests. Closing one closes both."""
        sibling = copy.copy(self)
        sibling.requests = Counter()
        return sibling

    async def close(self) -> None:
        """End every call and watch with an error, and all connections."""
        self._calls.close()

    def set_endpoints(self, endpoints: Sequence[str]) -> None:
        """Replace the endpoints; calls and watches go on."""
        self._calls.set_endpoints(endpoints)

    async def _operate(self, op: Op) -> Any:
        number = self._calls.native().operate(op)
        self._count(op)
        return await self._calls.answer(number)

    async def operate(self, op: Op) -> Any:
        """Carry out an operation that was made beforehand: a RangeResult, PutResult, DeleteResult or TxnResult."""
        return _RESULTS[op.kind](await self._operate(op))

    def _sending(self, kind: str) -> NativeClient:
        """What a request of this kind is started with."""
        native = self._calls.native()
        self.requests[kind] += 1
        return native

    def _count(self, op: Op) -> None:
        self.requests[_KINDS[op.kind]] += 1
        for inner in (*op.success, *op.failure):
            self._count(inner)

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

    async def get_streamed(self, op: Op) -> RangeResult:
        """Carry out an `Op.get` whose answer comes in pieces, which the store need not hold at once (etcd 3.7)."""
        minimum_mod, maximum_mod, minimum_create, maximum_create = op.revisions
        target, descending = op.sort
        request = {
            **{"key": op.key, "range_end": op.range_end, "limit": op.limit, "revision": op.revision},
            **{"sort_order": (2 if descending else 1) if target else 0, "sort_target": _TARGETS.index(target or "key")},
            **{"serializable": op.serializable, "keys_only": op.keys_only, "count_only": op.count_only},
            **{"min_mod_revision": minimum_mod, "max_mod_revision": maximum_mod},
            **{"min_create_revision": minimum_create, "max_create_revision": maximum_create},
        }
        data = wire.encode("RangeRequest", request)
        pieces = await self._calls.answer(self._sending("range").gather("etcdserverpb.KV/RangeStream", data))
        # Protobuf's merger of messages is that of their bytes.
        whole = b"".join(wire.decode("RangeStreamResponse", pieces)["range_response"])
        found = wire.decode("RangeResponse", whole)
        kvs = tuple(KeyValue(**kv) for kv in found["kvs"])
        return RangeResult(Header(**found["header"]), kvs, found["more"], found["count"])

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
        return Header(*await self._calls.answer(self._sending("compact").compact(revision, physical)))

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
        self.requests["watch"] += 1
        return Watch(self._calls, (key, range_end, start_revision, prev_kv, progress_notify))

    async def lease_grant(self, ttl: int, id: int = 0) -> LeaseGrant:
        """A lease of `ttl` seconds; the store chooses an id unless one is given."""
        return _lease(await self._calls.answer(self._sending("lease_grant").lease_grant(ttl, id)))

    async def lease_revoke(self, id: int) -> Header:
        """End a lease and delete its keys. Raises LeaseNotFound."""
        return Header(*await self._calls.answer(self._sending("lease_revoke").lease_revoke(id)))

    async def lease_keepalive(self, id: int) -> LeaseGrant:
        """Renew a lease once. Raises LeaseNotFound."""
        renewed = _lease(await self._calls.answer(self._sending("lease_keepalive").lease_keepalive(id)))
        if renewed.ttl <= 0:
            raise of_status(5, "etcdserver: requested lease not found")
        return renewed

    async def lease_time_to_live(self, id: int, keys: bool = False) -> LeaseTimeToLive:
        """What is left of a lease, and with `keys` what hangs on it."""
        head, lease, ttl, granted, held = await self._calls.answer(
            self._sending("lease_time_to_live").lease_time_to_live(id, keys)
        )
        return LeaseTimeToLive(Header(*head), lease, ttl, granted, tuple(held))

    async def lease_list(self) -> Leases:
        """All leases, and at which revision."""
        head, ids = await self._calls.answer(self._sending("leases").leases())
        return Leases(Header(*head), tuple(ids))

    async def member_list(self, linearizable: bool = True) -> Members:
        """Who is a member."""
        return _members(await self._calls.answer(self._sending("member_list").member_list(linearizable)))

    async def member_add(self, peer_urls: Sequence[str], learner: bool = False) -> Members:
        """Add a member; its id is the result's `subject`."""
        return _members(await self._calls.answer(self._sending("member_add").member_add(list(peer_urls), learner)))

    async def member_remove(self, id: int) -> Members:
        """Remove a member."""
        return _members(await self._calls.answer(self._sending("member_remove").member_remove(id)))

    async def member_update(self, id: int, peer_urls: Sequence[str]) -> Members:
        """Change a member's peer URLs."""
        return _members(await self._calls.answer(self._sending("member_update").member_update(id, list(peer_urls))))

    async def member_promote(self, id: int) -> Members:
        """Make a learner that has caught up a voter."""
        return _members(await self._calls.answer(self._sending("member_promote").member_promote(id)))

    async def call(self, method: str, request: Mapping[str, Any], *, endpoint: str | None = None) -> wire.Message:
        """Any unary method of `kvstore.messages`, say `Auth/UserAdd`; the response as a dict of all its fields.

        On `endpoint` alone when one is given; it need not be one of the client's. Raises StoreError.
        """
        found = messages.method(method)
        native = self._sending(method)
        data = wire.encode(found.request, request)
        return wire.decode(
            found.response, await self._calls.answer(native.unary(found.path, data, found.repeats, endpoint))
        )

    async def status(self, endpoint: str) -> Status:
        """Ask one endpoint about itself; it need not be one of the client's."""
        head, version, raft, sizes, learner, errors = await self._calls.answer(self._sending("status").status(endpoint))
        leader, term, index, applied = raft
        size, used = sizes
        header = Header(*head)
        return Status(header, version, leader, term, index, applied, size, used, learner, tuple(errors))


def _lease(value: Any) -> LeaseGrant:
    header, id, ttl = value
    return LeaseGrant(Header(*header), id, ttl)


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


_TARGETS = ("key", "version", "create", "mod", "value")
"""What to sort by, by the protocol's numbers."""
_KINDS = {"get": "range", "put": "put", "delete": "delete_range", "txn": "txn"}
_RESULTS: dict[str, Any] = {"get": _range, "put": _put, "delete": _delete, "txn": _txn}
