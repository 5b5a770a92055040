"""The store's answers as `-w fields` prints them: a name and a value a line, as etcd's client has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cli.kvctl.gotext import quote
from cli.kvctl.session import flags

if TYPE_CHECKING:
    from kvstore.model import Event, Header, KeyValue

PERMISSIONS = ("READ", "WRITE", "READWRITE")
ALARMS = ("NONE", "NOSPACE", "CORRUPT")


def _id(value: int) -> str:
    return f"{value:x}" if flags.hex else str(value)


def _lease(value: int) -> str:
    return f"{value:016x}" if flags.hex else str(value)


def text(data: bytes) -> str:
    """Bytes in quotes."""
    return quote(data.decode(errors="surrogateescape"))


def named(value: Any) -> str:
    """Plain values as Go prints them."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def head(shape: Mapping[str, int] | None) -> Iterator[str]:
    """A response header; older members leave it out of some answers."""
    shape = shape or dict.fromkeys(("cluster_id", "member_id", "revision", "raft_term"), 0)
    yield f'"ClusterID" : {_id(shape["cluster_id"])}'
    yield f'"MemberID" : {_id(shape["member_id"])}'
    yield f'"Revision" : {shape["revision"]}'
    yield f'"RaftTerm" : {shape["raft_term"]}'


def header(value: Header | None) -> Iterator[str]:
    """The same, of an answer that has words of its own."""
    from cli.kvctl import shape

    yield from head(shape.header(value))


def kv(value: KeyValue, prefix: str = "") -> Iterator[str]:
    """A key with its value and revisions."""
    yield f'"{prefix}Key" : {text(value.key)}'
    yield f'"{prefix}CreateRevision" : {value.create_revision}'
    yield f'"{prefix}ModRevision" : {value.mod_revision}'
    yield f'"{prefix}Version" : {value.version}'
    yield f'"{prefix}Value" : {text(value.value)}'
    yield f'"{prefix}Lease" : {_lease(value.lease)}'


def result(value: Any) -> Iterator[str]:
    """Of get, put, del or txn."""
    from kvstore.model import DeleteResult, PutResult, RangeResult, TxnResult

    yield from header(value.header)
    match value:
        case RangeResult(_, kvs, more, count):
            for one in kvs:
                yield from kv(one)
            yield f'"More" : {named(more)}'
            yield f'"Count" : {count}'
        case PutResult(_, prev):
            yield from kv(prev, "Prev") if prev else ()
        case DeleteResult(_, deleted, prev_kvs):
            yield f'"Deleted" : {deleted}'
            for one in prev_kvs:
                yield from kv(one, "Prev")
        case TxnResult(_, succeeded, responses):
            yield f'"Succeeded" : {named(succeeded)}'
            for response in responses:
                yield from result(response)


def events(head: Header | None, changes: Iterable[Event]) -> Iterator[str]:
    """Of watch."""
    yield from header(head)
    for one in changes:
        yield f'"Type" : {one.type.upper()}'
        yield from kv(one.prev_kv, "Prev") if one.prev_kv else ()
        yield from kv(one.kv)


def lease(head: Header, id: int, **numbers: int) -> Iterator[str]:
    """Of the verbs on one lease."""
    yield from header(head)
    yield f'"ID" : {_lease(id)}'
    for name, value in numbers.items():
        yield f'"{name}" : {value}'


def members(message: Mapping[str, Any]) -> Iterator[str]:
    """Of `member list`."""
    yield from head(message["header"])
    for one in message["members"]:
        yield f'"ID" : {_id(one["ID"])}'
        yield f'"Name" : {quote(one["name"])}'
        yield from (f'"PeerURL" : {quote(url)}' for url in one["peerURLs"])
        yield from (f'"ClientURL" : {quote(url)}' for url in one["clientURLs"])
        yield f'"IsLearner" : {named(one["isLearner"])}'
        yield ""


def status(endpoint: str, message: Mapping[str, Any]) -> Iterator[str]:
    """Of `endpoint status`."""
    yield from head(message["header"])
    yield f'"Version" : {quote(message["version"])}'
    yield f'"DBSize" : {message["dbSize"]}'
    yield f'"Leader" : {message["leader"]}'
    yield f'"IsLearner" : {named(message["isLearner"])}'
    for name in ("raftIndex", "raftTerm", "raftAppliedIndex"):
        yield f'"{name[0].upper()}{name[1:]}" : {message[name]}'
    yield f'"Errors" : [{" ".join(message["errors"])}]'
    yield f'"Endpoint" : {quote(endpoint)}'
    yield ""


def hash_kv(endpoint: str, message: Mapping[str, Any]) -> Iterator[str]:
    """Of `endpoint hashkv`."""
    yield from head(message["header"])
    yield f'"Endpoint" : {quote(endpoint)}'
    yield f'"Hash" : {message["hash"]}'
    yield f'"HashRevision" : {message["hash_revision"]}'
    yield ""


def alarms(message: Mapping[str, Any]) -> Iterator[str]:
    """Of the verbs on alarms."""
    yield from head(message["header"])
    for one in message["alarms"]:
        yield f'"MemberID" : {_id(one["memberID"])}'
        yield f'"AlarmType" : {ALARMS[one["alarm"]]}'
        yield ""


def role(message: Mapping[str, Any]) -> Iterator[str]:
    """Of `role get`."""
    yield from head(message["header"])
    for one in message["perm"]:
        yield f'"PermType" :  {PERMISSIONS[one["permType"]]}'
        yield f'"Key" : {text(one["key"])}'
        yield f'"RangeEnd" : {text(one["range_end"])}'


def roles(message: Mapping[str, Any]) -> Iterator[str]:
    """Of `role list`."""
    yield from head(message["header"])
    yield '"Roles" :' + "".join(f" {quote(one)}" for one in message["roles"])
