"""The wire format, against the bytes that etcd's own client prints with `-w protobuf`, and what is damaged."""

from __future__ import annotations

import random

import pytest

from kvstore import messages, wire

HEADER = {"cluster_id": 2**64 - 1, "member_id": 1, "revision": -1, "raft_term": 300}


def test_a_message_has_the_protocols_bytes() -> None:
    permission = {"permType": 2, "key": b"k", "range_end": b"\0"}
    data = wire.encode("AuthRoleGrantPermissionRequest", {"name": "r\u00e9", "perm": permission})
    assert data == b"\x0a\x03r\xc3\xa9\x12\x08\x08\x02\x12\x01k\x1a\x01\x00"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("RangeResponse", {"header": HEADER, "kvs": [], "more": True, "count": 3}),
        ("Member", {"ID": 7, "name": "", "peerURLs": ["a", ""], "clientURLs": [], "isLearner": True}),
        (
            "StatusResponse",
            {"header": None, "dbSizeQuota": 2**40, "downgradeInfo": {"enabled": True, "targetVersion": ""}},
        ),
        ("AlarmResponse", {"header": HEADER, "alarms": [{"memberID": 2**63, "alarm": 1}]}),
    ],
)
def test_what_was_written_is_read(name: str, message: wire.Message) -> None:
    empty = wire.decode(name, b"")
    assert wire.decode(name, wire.encode(name, message)) == {**empty, **message}


def test_unknown_fields_are_passed_over() -> None:
    unknown = b"\xf8\x07\x05" + b"\xfa\x07\x02hi" + b"\xfd\x07abcd" + b"\xf9\x07abcdefgh"
    assert wire.decode("AuthUserGetResponse", unknown + b"\x12\x01r")["roles"] == ["r"]


@pytest.mark.parametrize("data", [b"\x12", b"\x12\x05ab", b"\x10\x01", b"\xff" * 11, b"\x13", b"\x0a\x02\x08"])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.decode("AuthUserGetResponse", data)


def test_noise_ends_in_a_message_or_an_error() -> None:
    noise = random.Random(7)
    for _ in range(2000):
        try:
            wire.decode("StatusResponse", noise.randbytes(noise.randrange(40)))
        except wire.WireError:
            continue


def test_methods_are_found_by_their_names() -> None:
    assert messages.method("Auth/UserAdd").request == "AuthUserAddRequest"
    assert messages.method("Auth/AuthStatus").response == "AuthStatusResponse"
    assert messages.method("Maintenance/Alarm").path == "etcdserverpb.Maintenance/Alarm"
