"""What the API's unary methods take and give, beyond those that the client has words of its own for: names, numbers and
kinds of fields as in etcd 3.7's protocol, in the order in which they are printed. `*` marks a list."""

from __future__ import annotations

import functools
from dataclasses import dataclass

_HEADER = "header 1 ResponseHeader"
_MEMBERS = f"{_HEADER}, members 2 *Member"

_FIELDS = {
    "ResponseHeader": "cluster_id 1 uint64, member_id 2 uint64, revision 3 int64, raft_term 4 uint64",
    "KeyValue": (
        "key 1 bytes, create_revision 2 int64, mod_revision 3 int64, version 4 int64, value 5 bytes, lease 6 int64"
    ),
    "Event": "type 1 int64, kv 2 KeyValue, prev_kv 3 KeyValue",
    "RangeRequest": (
        "key 1 bytes, range_end 2 bytes, limit 3 int64, revision 4 int64, sort_order 5 int64, sort_target 6 int64, "
        "serializable 7 bool, keys_only 8 bool, count_only 9 bool, min_mod_revision 10 int64, "
        "max_mod_revision 11 int64, min_create_revision 12 int64, max_create_revision 13 int64"
    ),
    "RangeStreamResponse": "range_response 1 *bytes",
    "RangeResponse": f"{_HEADER}, kvs 2 *KeyValue, more 3 bool, count 4 int64",
    "PutResponse": f"{_HEADER}, prev_kv 2 KeyValue",
    "DeleteRangeResponse": f"{_HEADER}, deleted 2 int64, prev_kvs 3 *KeyValue",
    "ResponseOp": (
        "response_range 1 RangeResponse, response_put 2 PutResponse, response_delete_range 3 DeleteRangeResponse, "
        "response_txn 4 TxnResponse"
    ),
    "TxnResponse": f"{_HEADER}, succeeded 2 bool, responses 3 *ResponseOp",
    "WatchResponse": f"{_HEADER}, created 3 bool, canceled 4 bool, compact_revision 5 int64, events 11 *Event",
    "LeaseRevokeRequest": "ID 1 int64",
    "LeaseRevokeResponse": _HEADER,
    "Member": "ID 1 uint64, name 2 string, peerURLs 3 *string, clientURLs 4 *string, isLearner 5 bool",
    "MemberAddRequest": "peerURLs 1 *string, isLearner 2 bool",
    "MemberAddResponse": f"{_HEADER}, member 2 Member, members 3 *Member",
    "MemberRemoveRequest": "ID 1 uint64",
    "MemberRemoveResponse": _MEMBERS,
    "MemberUpdateRequest": "ID 1 uint64, peerURLs 2 *string",
    "MemberUpdateResponse": _MEMBERS,
    "MemberListRequest": "linearizable 1 bool",
    "MemberListResponse": _MEMBERS,
    "MemberPromoteRequest": "ID 1 uint64",
    "MemberPromoteResponse": _MEMBERS,
    "StatusRequest": "",
    "StatusResponse": (
        f"{_HEADER}, version 2 string, dbSize 3 int64, leader 4 uint64, raftIndex 5 uint64, raftTerm 6 uint64, "
        "raftAppliedIndex 7 uint64, errors 8 *string, dbSizeInUse 9 int64, isLearner 10 bool, "
        "storageVersion 11 string, dbSizeQuota 12 int64, downgradeInfo 13 DowngradeInfo"
    ),
    "DowngradeInfo": "enabled 1 bool, targetVersion 2 string",
    "MoveLeaderRequest": "targetID 1 uint64",
    "MoveLeaderResponse": _HEADER,
    "HashKVRequest": "revision 1 int64",
    "HashKVResponse": f"{_HEADER}, hash 2 uint64, compact_revision 3 int64, hash_revision 4 int64",
    "DefragmentRequest": "",
    "DefragmentResponse": _HEADER,
    "AlarmRequest": "action 1 int64, memberID 2 uint64, alarm 3 int64",
    "AlarmResponse": f"{_HEADER}, alarms 2 *AlarmMember",
    "AlarmMember": "memberID 1 uint64, alarm 2 int64",
    "DowngradeRequest": "action 1 int64, version 2 string",
    "DowngradeResponse": f"{_HEADER}, version 2 string",
    "AuthEnableRequest": "",
    "AuthEnableResponse": _HEADER,
    "AuthDisableRequest": "",
    "AuthDisableResponse": _HEADER,
    "AuthStatusRequest": "",
    "AuthStatusResponse": f"{_HEADER}, enabled 2 bool, authRevision 3 uint64",
    "AuthenticateRequest": "name 1 string, password 2 string",
    "AuthenticateResponse": f"{_HEADER}, token 2 string",
    "AuthUserAddRequest": "name 1 string, password 2 string, options 3 UserAddOptions",
    "UserAddOptions": "no_password 1 bool",
    "AuthUserAddResponse": _HEADER,
    "AuthUserGetRequest": "name 1 string",
    "AuthUserGetResponse": f"{_HEADER}, roles 2 *string",
    "AuthUserListRequest": "",
    "AuthUserListResponse": f"{_HEADER}, users 2 *string",
    "AuthUserDeleteRequest": "name 1 string",
    "AuthUserDeleteResponse": _HEADER,
    "AuthUserChangePasswordRequest": "name 1 string, password 2 string",
    "AuthUserChangePasswordResponse": _HEADER,
    "AuthUserGrantRoleRequest": "user 1 string, role 2 string",
    "AuthUserGrantRoleResponse": _HEADER,
    "AuthUserRevokeRoleRequest": "name 1 string, role 2 string",
    "AuthUserRevokeRoleResponse": _HEADER,
    "AuthRoleAddRequest": "name 1 string",
    "AuthRoleAddResponse": _HEADER,
    "AuthRoleGetRequest": "role 1 string",
    "AuthRoleGetResponse": f"{_HEADER}, perm 2 *Permission",
    "Permission": "permType 1 int64, key 2 bytes, range_end 3 bytes",
    "AuthRoleListRequest": "",
    "AuthRoleListResponse": f"{_HEADER}, roles 2 *string",
    "AuthRoleDeleteRequest": "role 1 string",
    "AuthRoleDeleteResponse": _HEADER,
    "AuthRoleGrantPermissionRequest": "name 1 string, perm 2 Permission",
    "AuthRoleGrantPermissionResponse": _HEADER,
    "AuthRoleRevokePermissionRequest": "role 1 string, key 2 bytes, range_end 3 bytes",
    "AuthRoleRevokePermissionResponse": _HEADER,
}

_REPEATABLE = {"MemberList", "Status", "AuthStatus", "UserGet", "UserList", "RoleGet", "RoleList"}
"""Methods that may be sent again when their answer is missing."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message."""

    name: str
    number: int
    kind: str
    """uint64, int64 (enums too), bool, string, bytes, or a message's name."""
    many: bool


@dataclass(frozen=True, slots=True)
class Method:
    """A unary method: its full name, and the names of its messages."""

    path: str
    request: str
    response: str
    repeats: bool


@functools.cache
def fields(message: str) -> tuple[Field, ...]:
    """A message's fields, in order."""
    return tuple(_field(*text.split()) for text in _FIELDS[message].split(", ") if text)


def _field(name: str, number: str, kind: str) -> Field:
    return Field(name, int(number), kind.removeprefix("*"), kind.startswith("*"))


def method(name: str) -> Method:
    """A method by the name `Service/Method`."""
    service, _, verb = name.partition("/")
    message = f"Auth{verb}" if service == "Auth" and not verb.startswith("Auth") else verb
    return Method(f"etcdserverpb.{name}", f"{message}Request", f"{message}Response", verb in _REPEATABLE)
