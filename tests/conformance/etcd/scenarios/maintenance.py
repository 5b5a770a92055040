"""Alarms, by etcdctl and by raw gRPC: what stands, and what it refuses."""

from dataclasses import replace

from tests.conformance.etcd.scenarios.ranges import get, put
from tests.conformance.etcd.scenarios.transactions import op_get, op_put, op_txn, txn
from tests.conformance.etcd.steps import Call, Ctl, Do, Fetch, Scenario, Step, Until

HEALTH_SINCE = (3, 5)
"""It gives a reason since then."""
ALARM_SINCE = (3, 5)
"""Its answers have a header since then, and `NONE` is not raised."""
DOWNGRADE_SINCE = (3, 7)
"""There is one since 3.6; the versions are those of 3.7."""
NESTED_SINCE = (3, 5)
"""It looks into nested transactions since then."""
OP_DELETE = {"request_delete_range": {"key": "k"}}


def downgrade(action: str, version: str = "") -> Step:
    """Validate, begin or end a downgrade."""
    return Call("Maintenance/Downgrade", {"action": action, "version": version})


def alarm(action: str, kind: str = "NONE", member: str | int = "{leader}", *, at: str = "") -> Step:
    """Raise, clear or list alarms."""
    return Call("Maintenance/Alarm", {"action": action, "alarm": kind, "memberID": member}, at=at)


CHANGES = (
    put("k", "v"),
    txn(success=[op_put("a", "1")]),
    txn(failure=[op_put("a", "1")]),
    replace(txn(success=[op_txn(failure=[op_put("a", "1")])]), since=NESTED_SINCE),
    txn(success=[op_get(key="k")]),
    txn(success=[OP_DELETE]),
    Call("KV/DeleteRange", {"key": "k"}),
    Call("KV/Compact", {"revision": "{base}"}),
    Call("Lease/LeaseGrant", {"ID": 8, "TTL": 600}),
    Call("Lease/LeaseRevoke", {"ID": 7}),
    get(key="k"),
    get(key="k", serializable=True),
    Ctl("put k v"),
    Ctl("get k"),
)

SCENARIOS = (
    Scenario(
        "alarms: raised, listed, cleared",
        (
            alarm("GET"),
            alarm("ACTIVATE"),
            alarm("DEACTIVATE", "NOSPACE"),
            alarm("ACTIVATE", "NOSPACE"),
            alarm("ACTIVATE", "NOSPACE"),
            alarm("GET"),
            alarm("GET", "NOSPACE", 123),
            alarm("GET", "CORRUPT"),
            alarm("DEACTIVATE", "CORRUPT"),
            alarm("DEACTIVATE", "NOSPACE", 123),
            *(Ctl(f"alarm list -w {form}") for form in ("simple", "fields", "json")),
            *(Fetch(f"/health{query}", since=HEALTH_SINCE) for query in ("", "?exclude=NOSPACE", "?exclude=CORRUPT")),
            Ctl("endpoint health"),
            Ctl("alarm disarm"),
            Ctl("alarm list"),
            Ctl("alarm disarm"),
            Fetch("/health", since=HEALTH_SINCE),
            Ctl("alarm nonsense"),
        ),
        since=ALARM_SINCE,
    ),
    Scenario(
        "alarms: no space",
        (
            put("k", "before"),
            Call("Lease/LeaseGrant", {"ID": 7, "TTL": 600}),
            Do(alarm("ACTIVATE", "NOSPACE")),
            Ctl("alarm list"),
            *CHANGES,
            Ctl("alarm disarm"),
            Ctl("alarm list"),
            put("k", "after"),
            get(key="k"),
        ),
    ),
    Scenario(
        "alarms: corrupt",
        (
            put("k", "before"),
            Call("Lease/LeaseGrant", {"ID": 7, "TTL": 600}),
            Do(alarm("ACTIVATE", "CORRUPT", 123)),
            *CHANGES,
            Fetch("/health?exclude=NOSPACE", since=HEALTH_SINCE),
            Ctl("alarm list"),
            Do(alarm("DEACTIVATE", "CORRUPT", 123)),
            put("k", "after"),
            get(key="k"),
            Call("Lease/LeaseRevoke", {"ID": 7}),
        ),
    ),
    Scenario(
        "alarms: both",
        (
            put("k", "before"),
            alarm("ACTIVATE", "CORRUPT"),
            alarm("ACTIVATE", "NOSPACE"),
            *CHANGES,
            alarm("DEACTIVATE", "NOSPACE"),
            alarm("GET"),
            alarm("DEACTIVATE", "CORRUPT"),
            put("k", "after"),
        ),
        since=ALARM_SINCE,
    ),
    Scenario(
        "downgrade",
        (
            *(downgrade("VALIDATE", text) for text in ("3.6", "3.6.0", "3.6.7-rc.1", "3.7", "3.8.0", "3.5.0", "4.6.0")),
            *(downgrade("VALIDATE", text) for text in ("", "3", "v3.6.0", "3.6.x", "3.6.0.0", "-3.6.0", "nonsense")),
            downgrade("CANCEL"),
            downgrade("ENABLE"),
            downgrade("ENABLE", "3.5.0"),
            downgrade("ENABLE", "3.6"),
            # The leader looks every few seconds what the cluster's version is to be.
            Until(downgrade("ENABLE", "3.6"), "invalid downgrade target"),
            downgrade("ENABLE", "3.5"),
            downgrade("VALIDATE", "3.5"),
            Call("Maintenance/Status"),
            downgrade("CANCEL"),
            Until(downgrade("VALIDATE", "3.6.0"), '"OK"'),
            Call("Maintenance/Status"),
            downgrade("CANCEL", "ignored"),
        ),
        since=DOWNGRADE_SINCE,
    ),
    Scenario(
        "three members: alarms are everybody's",
        (
            Do(alarm("ACTIVATE", "NOSPACE", "{follower1}", at="follower")),
            *(Ctl("alarm list", at=at) for at in ("leader", "follower", "follower1")),
            *(Call("KV/Put", {"key": "k"}, at=at) for at in ("leader", "follower", "follower1")),
            Ctl("alarm list"),
            Ctl("alarm disarm", at="follower1"),
            *(Call("KV/Put", {"key": "k"}, at=at) for at in ("leader", "follower", "follower1")),
        ),
        members=3,
    ),
)
