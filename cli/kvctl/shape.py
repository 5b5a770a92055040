"""The store's answers in the JSON that etcd's client prints with `-w json`: the same names, bytes in base64, and what
is empty or zero left out. Answers on leases come without etcd's header.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvstore.model import Event, Header, KeyValue, LeaseTimeToLive, Member, Members, Status, WatchBatch

Shape = dict[str, Any]


def line(value: Any) -> str:
    """As etcd's client prints it: one line."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _without(shape: Shape) -> Shape:
    return {name: value for name, value in shape.items() if value not in (None, "", 0, [])}


def _bytes(data: bytes) -> str:
    return base64.b64encode(data).decode()


def header(value: Header) -> Shape:
    """Who answered, and when."""
    names = ("cluster_id", "member_id", "revision", "raft_term")
    return _without({name: getattr(value, name) for name in names})


def kv(value: KeyValue | None) -> Shape | None:
    """A key with its value and revisions."""
    if value is None:
        return None
    shape = {"key": _bytes(value.key), "create_revision": value.create_revision, "mod_revision": value.mod_revision}
    return _without(shape | {"version": value.version, "value": _bytes(value.value), "lease": value.lease})


def result(value: Any) -> Shape:
    """Of get, put, del or txn."""
    from kvstore.model import DeleteResult, PutResult, RangeResult

    head = {"header": header(value.header)}
    match value:
        case RangeResult(_, kvs, more, count):
            return head | _without({"kvs": [kv(one) for one in kvs], "more": more, "count": count})
        case PutResult(_, prev):
            return head | _without({"prev_kv": kv(prev)})
        case DeleteResult(_, deleted, prev_kvs):
            return head | _without({"deleted": deleted, "prev_kvs": [kv(one) for one in prev_kvs]})
    names = {RangeResult: "ResponseRange", PutResult: "ResponsePut", DeleteResult: "ResponseDeleteRange"}
    done = [{"Response": {names.get(type(one), "ResponseTxn"): result(one)}} for one in value.responses]
    return head | _without({"succeeded": value.succeeded, "responses": done})


def _event(value: Event) -> Shape:
    return _without({"type": int(value.type == "delete"), "kv": kv(value.kv), "prev_kv": kv(value.prev_kv)})


def batch(value: WatchBatch) -> Shape:
    """Of watch. The header tells only the revision."""
    events = [_event(one) for one in value.events]
    head = {"Header": {"revision": value.revision}, "Events": events}
    return head | {"CompactRevision": 0, "Canceled": False, "Created": False}


def member(value: Member) -> Shape:
    """One member."""
    shape = {"ID": value.id, "name": value.name, "peerURLs": list(value.peer_urls)}
    return _without(shape | {"clientURLs": list(value.client_urls), "isLearner": value.is_learner})


def members(value: Members) -> Shape:
    """Of every verb on members; `member add` also tells which one is new."""
    subject = next((member(one) for one in value.members if one.id == value.subject), None)
    every = [member(one) for one in value.members]
    return {"header": header(value.header)} | _without({"member": subject, "members": every})


def time_to_live(value: LeaseTimeToLive, keys: bool) -> Shape:
    """Of `lease timetolive`; `keys` says whether they were asked for."""
    held = [_bytes(key) for key in value.keys] if keys else None
    return {"id": value.id, "ttl": value.ttl, "granted-ttl": value.granted_ttl, "keys": held or None}


def status(url: str, value: Status) -> Shape:
    """Of `endpoint status`."""
    shape = {"header": header(value.header), "version": value.version, "dbSize": value.db_size, "leader": value.leader}
    shape |= {"raftIndex": value.raft_index, "raftTerm": value.raft_term, "raftAppliedIndex": value.raft_applied_index}
    shape |= {"errors": list(value.errors), "dbSizeInUse": value.db_size_in_use, "isLearner": value.is_learner}
    return {"Endpoint": url, "Status": _without(shape)}
