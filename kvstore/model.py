"""What goes into store calls and what comes back: plain frozen values, with etcd's meaning. Nothing here talks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EventType = Literal["put", "delete"]
Sort = tuple[str, bool]
"""What to sort by (key, version, create, mod or value), and whether descending."""
Login = tuple[str, str]
"""A user's name and password, or an empty name and a token."""
MAX_TXN_OPS = 128
"""Comparisons, and operations of either branch, that a transaction may have (etcd's default of `--max-txn-ops`)."""


@dataclass(frozen=True, slots=True)
class Header:
    """Who answered, and at which revision."""

    cluster_id: int
    member_id: int
    revision: int
    raft_term: int


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A key as it was at some revision."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int


@dataclass(frozen=True, slots=True)
class Event:
    """One change. A deletion's `kv` has only its key and mod_revision."""

    type: EventType
    kv: KeyValue
    prev_kv: KeyValue | None = None


@dataclass(frozen=True, slots=True)
class WatchBatch:
    """All changes of whole revisions, up to `revision`; without events it tells progress. `header` is that of the
    answer that they came in, or of the last when there were several."""

    revision: int
    events: tuple[Event, ...]
    header: Header | None = None


@dataclass(frozen=True, slots=True)
class RangeResult:
    """`count` is how many keys the range has, whatever the limit."""

    header: Header
    kvs: tuple[KeyValue, ...]
    more: bool
    count: int


@dataclass(frozen=True, slots=True)
class PutResult:
    """`prev` only when asked for."""

    header: Header
    prev: KeyValue | None = None


@dataclass(frozen=True, slots=True)
class DeleteResult:
    """`prev` only when asked for."""

    header: Header
    deleted: int
    prev: tuple[KeyValue, ...] = ()


@dataclass(frozen=True, slots=True)
class TxnResult:
    """One response for each operation of the branch that ran."""

    header: Header
    succeeded: bool
    responses: tuple[RangeResult | PutResult | DeleteResult | TxnResult, ...] = ()


@dataclass(frozen=True, slots=True)
class LeaseGrant:
    """A lease and the TTL that the store chose, in seconds."""

    header: Header
    id: int
    ttl: int


@dataclass(frozen=True, slots=True)
class LeaseTimeToLive:
    """`ttl` is what is left, in seconds; -1 for a lease that is not there."""

    header: Header
    id: int
    ttl: int
    granted_ttl: int
    keys: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Leases:
    """The ids of all leases."""

    header: Header
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the store; one that never started has no name."""

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    is_learner: bool


@dataclass(frozen=True, slots=True)
class Members:
    """The membership after a call; `subject` is the id of the member just added, else 0."""

    header: Header
    subject: int
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """How one member sees itself."""

    header: Header
    version: str
    leader: int
    raft_term: int
    raft_index: int
    raft_applied_index: int
    db_size: int
    db_size_in_use: int
    is_learner: bool
    errors: tuple[str, ...]

    @property
    def member_id(self) -> int:
        """The id of the member that answered."""
        return self.header.member_id


@dataclass(frozen=True, slots=True)
class Compare:
    """A condition of a transaction; `op` is one of = != < >."""

    key: bytes
    target: str
    result: str
    number: int = 0
    data: bytes = b""
    range_end: bytes = b""

    @classmethod
    def version(cls, key: bytes, op: str, number: int) -> Compare:
        """Compare how many puts the key has had; 0 for a key that is not there."""
        return cls(key, "version", op, number)

    @classmethod
    def create(cls, key: bytes, op: str, revision: int) -> Compare:
        """Compare the revision that created the key; 0 for a key that is not there."""
        return cls(key, "create", op, revision)

    @classmethod
    def mod(cls, key: bytes, op: str, revision: int) -> Compare:
        """Compare the revision of the key's last put."""
        return cls(key, "mod", op, revision)

    @classmethod
    def lease(cls, key: bytes, op: str, lease: int) -> Compare:
        """Compare the key's lease."""
        return cls(key, "lease", op, lease)

    @classmethod
    def value(cls, key: bytes, op: str, data: bytes) -> Compare:
        """Compare the key's value, byte by byte."""
        return cls(key, "value", op, data=data)


@dataclass(frozen=True, slots=True)
class Op:
    """An operation, alone or in a transaction. Made by the class methods."""

    kind: str
    key: bytes = b""
    value: bytes = b""
    range_end: bytes = b""
    lease: int = 0
    limit: int = 0
    revision: int = 0
    sort: Sort = ("", False)
    serializable: bool = False
    keys_only: bool = False
    count_only: bool = False
    revisions: tuple[int, int, int, int] = (0, 0, 0, 0)
    prev_kv: bool = False
    ignore_value: bool = False
    ignore_lease: bool = False
    compare: tuple[Compare, ...] = ()
    success: tuple[Op, ...] = ()
    failure: tuple[Op, ...] = ()

    @classmethod
    def put(
        cls,
        key: bytes,
        value: bytes = b"",
        lease: int = 0,
        *,
        prev_kv: bool = False,
        ignore_value: bool = False,
        ignore_lease: bool = False,
    ) -> Op:
        """Set a key; `ignore_*` keeps what it has."""
        return cls(
            "put",
            key,
            value,
            lease=lease,
            prev_kv=prev_kv,
            ignore_value=ignore_value,
            ignore_lease=ignore_lease,
        )

    @classmethod
    def get(
        cls,
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
    ) -> Op:
        """Read a key, or the keys from `key` to before `range_end`."""
        return cls(
            "get",
            key,
            range_end=range_end,
            limit=limit,
            revision=revision,
            sort=sort or ("", False),
            serializable=serializable,
            keys_only=keys_only,
            count_only=count_only,
            revisions=(min_mod_revision, max_mod_revision, min_create_revision, max_create_revision),
        )

    @classmethod
    def delete(cls, key: bytes, *, range_end: bytes = b"", prev_kv: bool = False) -> Op:
        """Delete a key, or the keys from `key` to before `range_end`."""
        return cls("delete", key, range_end=range_end, prev_kv=prev_kv)

    @classmethod
    def txn(cls, compare: tuple[Compare, ...], success: tuple[Op, ...], failure: tuple[Op, ...] = ()) -> Op:
        """A transaction inside a transaction."""
        return cls("txn", compare=tuple(compare), success=tuple(success), failure=tuple(failure))
