"""Leases, by etcdctl and by raw gRPC."""

from tests.conformance.etcd.scenarios.etcdctl_kv import each_format
from tests.conformance.etcd.scenarios.ranges import get, put
from tests.conformance.etcd.steps import Begin, Call, Close, Ctl, Lines, Open, Scenario, Send, Take, Until

MAX_TTL = 9_000_000_000
"""Seconds; a longer one is refused."""


def grant(lease: int, ttl: int) -> Call:
    return Call("Lease/LeaseGrant", {"ID": lease, "TTL": ttl})


def left(lease: int, keys: bool = False) -> Call:
    return Call("Lease/LeaseTimeToLive", {"ID": lease, "keys": keys})


def revoke(lease: int) -> Call:
    return Call("Lease/LeaseRevoke", {"ID": lease})


SCENARIOS = (
    Scenario(
        "etcdctl lease",
        (
            Ctl("lease grant 600 -w json", save={"lease_id": "ID"}),
            Ctl("put a 1 --lease={lease_id:x}"),
            Ctl("get a -w json"),
            *each_format("lease list"),
            Ctl("lease keep-alive --once {lease_id:x}"),
            Ctl("lease keep-alive --once {lease_id:x} -w json"),
            Ctl("lease keep-alive --once {lease_id:x} -w fields"),
            *each_format("lease timetolive {lease_id:x} --keys"),
            *each_format("lease timetolive {lease_id:x}"),
            Ctl("lease revoke {lease_id:x} -w json"),
            Ctl("get a"),
            *each_format("lease timetolive {lease_id:x}"),
            Ctl("lease keep-alive --once {lease_id:x}"),
            Ctl("lease keep-alive {lease_id:x}"),
            Ctl("lease revoke {lease_id:x}"),
            Ctl("lease revoke {lease_id:x} -w json"),
            *each_format("lease list"),
        ),
    ),
    Scenario(
        "etcdctl lease, misused",
        (
            Ctl("lease grant"),
            Ctl("lease grant x"),
            Ctl("lease grant 0 -w json", save={"a_id": "ID"}),
            Ctl("lease grant -w json -- -5", save={"b_id": "ID"}),
            Ctl(f"lease grant {MAX_TTL + 1}"),
            Ctl("lease revoke"),
            Ctl("lease revoke zz"),
            Ctl("lease timetolive"),
            Ctl("lease timetolive zz"),
            Ctl("lease timetolive 123"),
            Ctl("lease keep-alive"),
            Ctl("lease keep-alive zz"),
            Ctl("lease nonsense"),
        ),
    ),
    Scenario(
        "etcdctl lease keep-alive goes on",
        (
            grant(0x77, 3),
            Begin("alive", "lease keep-alive 77"),
            Lines("alive", 2),
            Ctl("lease revoke 77"),
            Lines("alive"),
        ),
    ),
    Scenario(
        "lease: grant",
        (
            grant(5, 600),
            grant(5, 600),
            grant(7, 0),
            revoke(7),
            grant(8, -1),
            revoke(8),
            grant(6, 1),
            grant(-9, 600),
            grant(10, MAX_TTL),
            grant(11, MAX_TTL + 1),
            grant(2**63 - 1, 500),
            *(left(lease) for lease in (5, 7, 8, -9, 10, 11, 0, 99)),
            Call("Lease/LeaseLeases"),
            revoke(0),
            revoke(99),
            revoke(-9),
            revoke(-9),
        ),
    ),
    Scenario(
        "lease: keys",
        (
            grant(5, 600),
            grant(6, 600),
            put("b", "1", lease=5),
            put("a", "1", lease=5),
            put("c", "1", lease=5),
            left(5, keys=True),
            left(5),
            put("a", "2", lease=6),
            put("c", "2"),
            left(5, keys=True),
            left(6, keys=True),
            Call("KV/DeleteRange", {"key": "b"}),
            left(5, keys=True),
            put("a", "3", lease=6),
            revoke(5),
            revoke(6),
            get(key="\0", range_end="\0"),
            left(6, keys=True),
        ),
    ),
    Scenario(
        "lease: the shortest one ends",
        (
            grant(5, 1),
            put("a", "1", lease=5),
            Until(left(5), '"TTL": -1'),
            get(key="a"),
            revoke(5),
            put("a", "1", lease=5),
        ),
    ),
    Scenario(
        "lease: keep alive",
        (
            grant(5, 600),
            Open("k", "Lease/LeaseKeepAlive"),
            Send("k", {"ID": 5}),
            Take("k", responses=1),
            Send("k", {"ID": 99}),
            Take("k", responses=1),
            Send("k", {}),
            Take("k", responses=1),
            put("a", "1", lease=5),
            Send("k", {"ID": 5}),
            Take("k", responses=1),
            Close("k"),
            Take("k", end=True),
            left(5, keys=True),
        ),
    ),
)
