"""The store's answers as messages (dicts with the protocol's names), and messages in the JSON that etcd's client prints
with `-w json`: the same names, bytes in base64, and what is empty or zero left out."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvstore.model import (
        Event,
        Header,
        KeyValue,
        LeaseGrant,
        Leases,
        LeaseTimeToLive,
        WatchBatch,
    )

Shape = dict[str, Any]
_ESCAPED = ("<", ">", "&", "\u2028", "\u2029")
_ESCAPES = str.maketrans({letter: f"\\u{ord(letter):04x}" for letter in _ESCAPED})
_OPERATIONS = {
    "response_range": "ResponseRange",
    "response_put": "ResponsePut",
    "response_delete_range": "ResponseDeleteRange",
    "response_txn": "ResponseTxn",
}


def line(value: Any) -> str:
    """JSON as Go writes it, in one line."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.translate(_ESCAPES).encode(errors="replace").decode()


def plain(message: Mapping[str, Any]) -> Shape:
    """A message as it is printed: nothing that is empty, bytes in base64, a transaction's results with their kinds."""
    return {name: _plain(value) for name, value in message.items() if value not in (None, "", b"", 0, [])}


def _plain(value: Any) -> Any:
    match value:
        case bytes():
            return base64.b64encode(value).decode()
        case list():
            return [_plain(one) for one in value]
        case {"response_range": _} | {"response_put": _} | {"response_delete_range": _} | {"response_txn": _}:
            return {"Response": {_OPERATIONS[kind]: plain(one) for kind, one in value.items() if one is not None}}
        case dict():
            return plain(value)
    return value


def header(value: Header | None) -> Shape:
    """Who answered, and when."""
    names = ("cluster_id", "member_id", "revision", "raft_term")
    return {name: getattr(value, name) if value else 0 for name in names}


def kv(value: KeyValue | None) -> Shape | None:
    """A key with its value and revisions."""
    if value is None:
        return None
    shape = {"key": value.key, "create_revision": value.create_revision, "mod_revision": value.mod_revision}
    return shape | {"version": value.version, "value": value.value, "lease": value.lease}


def result(value: Any) -> Shape:
    """Of get, put, del or txn."""
    from kvstore.model import DeleteResult, PutResult, RangeResult

    head = {"header": header(value.header)}
    match value:
        case RangeResult(_, kvs, more, count):
            return head | {"kvs": [kv(one) for one in kvs], "more": more, "count": count}
        case PutResult(_, prev):
            return head | {"prev_kv": kv(prev)}
        case DeleteResult(_, deleted, prev_kvs):
            return head | {"deleted": deleted, "prev_kvs": [kv(one) for one in prev_kvs]}
    names = {RangeResult: "response_range", PutResult: "response_put", DeleteResult: "response_delete_range"}
    done = [{names.get(type(one), "response_txn"): result(one)} for one in value.responses]
    return head | {"succeeded": value.succeeded, "responses": done}


def event(value: Event) -> Shape:
    """One change."""
    return {"type": int(value.type == "delete"), "kv": kv(value.kv), "prev_kv": kv(value.prev_kv)}


def batch(value: WatchBatch) -> Shape:
    """Of watch."""
    return watched(value.header, [plain(event(one)) for one in value.events])


def watched(head: Header | None, events: list[Shape], compacted: int = 0) -> Shape:
    """Of watch; the last answer is the one with the revision that was compacted."""
    ended = {"CompactRevision": compacted, "Canceled": bool(compacted), "Created": False}
    return {"Header": plain(header(head)), "Events": events} | ended


def lease(value: LeaseGrant) -> Shape:
    """Of `lease grant` and `lease keep-alive`."""
    return plain(header(value.header)) | {"ID": value.id, "TTL": value.ttl}


def leases(value: Leases) -> Shape:
    """Of `lease list`."""
    return plain(header(value.header)) | {"leases": [{"id": one} for one in value.ids]}


def time_to_live(value: LeaseTimeToLive, keys: bool) -> Shape:
    """Of `lease timetolive`; `keys` says whether they were asked for."""
    held = [base64.b64encode(key).decode() for key in value.keys] if keys else None
    told = {"id": value.id, "ttl": value.ttl, "granted-ttl": value.granted_ttl, "keys": held or None}
    return plain(header(value.header)) | told


def hexadecimal(message: Mapping[str, Any]) -> Shape:
    """Of the verbs on members with --hex: their ids, which are always there, as texts."""
    told = plain(message)
    head = message["header"]
    told["header"] = {
        "cluster_id": f"{head['cluster_id']:x}",
        "member_id": f"{head['member_id']:x}",
        **{name: head[name] for name in ("revision", "raft_term") if head[name]},
    }
    for member in [*told.get("members", []), *([told["member"]] if "member" in told else [])]:
        member["ID"] = f"{member.get('ID', 0):x}"
    return told
