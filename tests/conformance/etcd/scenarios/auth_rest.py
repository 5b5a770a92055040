"""What users may do beside keys: leases, the membership, maintenance."""

from typing import Any

from tests.conformance.etcd.scenarios.auth import ALICE, ON, ROOT, auth, login
from tests.conformance.etcd.scenarios.auth_keys import ALICE_IN, as_alice, as_root
from tests.conformance.etcd.steps import Call, Close, Ctl, Open, Scenario, Send, Step, Take, Until


def each_caller(method: str, since: tuple[int, int] = (3, 4), **request: Any) -> tuple[Step, ...]:
    """The same call by nobody, by alice, and by who shows a token that nobody has."""
    tokens: tuple[dict[str, str], ...] = ({}, {"token": "{alice_token}"}, {"token": "x.1"})
    return tuple(Call(method, request, token, since=since) for token in tokens)


SCENARIOS = (
    Scenario(
        "auth: leases",
        (
            *ALICE_IN,
            *each_caller("Lease/LeaseGrant", since=(3, 7), ID=5, TTL=600),
            as_root("Lease/LeaseGrant", ID=6, TTL=600),
            as_root("Lease/LeaseGrant", ID=7, TTL=600),
            as_root("Lease/LeaseGrant", ID=8, TTL=600),
            as_root("KV/Put", key="a", lease=6),
            as_root("KV/Put", key="b", lease=7),
            as_root("KV/Put", key="c", lease=8),
            # One that goes with a key that she may not write is not hers to attach to, or to revoke.
            as_alice("KV/Put", key="b", lease=6),
            as_alice("KV/Put", key="b", lease=7),
            as_alice("KV/Put", key="b", lease=99),
            as_alice("Lease/LeaseTimeToLive", ID=6),
            as_alice("Lease/LeaseTimeToLive", ID=6, keys=True),
            as_alice("Lease/LeaseTimeToLive", ID=7, keys=True),
            as_alice("Lease/LeaseTimeToLive", ID=8),
            Call("Lease/LeaseTimeToLive", {"ID": 8, "keys": True}, {"token": "{alice_token}"}, since=(3, 5)),
            as_alice("Lease/LeaseTimeToLive", ID=99, keys=True),
            *each_caller("Lease/LeaseLeases", since=(3, 7)),
            as_root("Lease/LeaseLeases"),
            *each_caller("Lease/LeaseRevoke", since=(3, 7), ID=8),
            *each_caller("Lease/LeaseTimeToLive", since=(3, 7), ID=8),
            as_alice("Lease/LeaseRevoke", ID=6),
            as_alice("Lease/LeaseRevoke", ID=7),
            as_alice("Lease/LeaseRevoke", ID=99),
            as_root("Lease/LeaseRevoke", ID=6),
            as_root("Lease/LeaseRevoke", ID=8),
            as_root("KV/Range", key="\0", range_end="\0"),
        ),
    ),
    Scenario(
        "auth: keeping leases alive",
        (
            *ALICE_IN,
            as_root("Lease/LeaseGrant", ID=6, TTL=600),
            as_root("Lease/LeaseGrant", ID=7, TTL=600),
            as_root("KV/Put", key="c", lease=6),
            as_root("KV/Put", key="b", lease=7),
            Open("k", "Lease/LeaseKeepAlive", metadata={"token": "{alice_token}"}),
            Send("k", {"ID": 7}),
            Take("k", responses=1),
            Send("k", {"ID": 99}),
            Take("k", responses=1),
            Send("k", {"ID": 6}),
            Take("k", end=True),
            Open("n", "Lease/LeaseKeepAlive"),
            Send("n", {"ID": 7}),
            Take("n", end=True),
            Open("x", "Lease/LeaseKeepAlive", metadata={"token": "x.1"}),
            Send("x", {"ID": 7}),
            Take("x", end=True),
            Open("r", "Lease/LeaseKeepAlive", metadata={"token": "{root_token}"}),
            Send("r", {"ID": 6}),
            Take("r", responses=1),
            Close("r"),
            Take("r", end=True),
        ),
        since=(3, 7),
    ),
    Scenario(
        "auth: a lease ends by itself",
        (
            *ALICE_IN,
            as_root("Lease/LeaseGrant", ID=6, TTL=1),
            as_root("KV/Put", key="a", lease=6),
            Until(as_root("Lease/LeaseTimeToLive", ID=6), '"TTL": -1'),
            as_root("KV/Range", key="a"),
        ),
    ),
    Scenario(
        "auth: the membership is root's",
        (
            *ALICE_IN,
            *each_caller("Cluster/MemberAdd", peerURLs=["{new_peer}"]),
            *each_caller("Cluster/MemberRemove", ID="{leader}"),
            *each_caller("Cluster/MemberUpdate", ID="{leader}", peerURLs=["{new_peer}"]),
            *each_caller("Cluster/MemberPromote", ID="{leader}"),
            as_alice("Cluster/MemberList"),
            *each_caller("Cluster/MemberList", since=(3, 7)),
            as_root("Cluster/MemberRemove", ID=99),
            as_root("Cluster/MemberPromote", ID="{leader}"),
            Ctl(f"member list {ROOT}"),
            Ctl(f"member list {ALICE}"),
        ),
    ),
    Scenario(
        "auth: maintenance",
        (
            *ALICE_IN,
            *each_caller("Maintenance/Status", since=(3, 7)),
            *each_caller("Maintenance/MoveLeader", since=(3, 7), targetID=99),
            as_root("Maintenance/MoveLeader", targetID=99),
            Ctl(f"endpoint health {ROOT}"),
            Ctl(f"endpoint health {ALICE}"),
        ),
    ),
    Scenario(
        "auth: a token holds at each member",
        (
            *ON,
            login("root", "rootpw"),
            *(
                Call("KV/Put", {"key": at, "value": "1"}, {"token": "{root_token}"}, at=at)
                for at in ("leader", "follower", "follower1")
            ),
            *(
                Call(
                    "KV/Range",
                    {"key": "\0", "range_end": "\0", "serializable": False},
                    {"token": "{root_token}"},
                    at=at,
                )
                for at in ("leader", "follower", "follower1")
            ),
            Call("KV/Range", {"key": "a", "serializable": True}, {"token": "x.1"}, at="follower"),
            Call("KV/Range", {"key": "a", "serializable": True}, at="follower"),
            Call("Lease/LeaseGrant", {"ID": 5, "TTL": 600}, {"token": "{root_token}"}, at="follower"),
            Call("Lease/LeaseTimeToLive", {"ID": 5, "keys": True}, {"token": "{root_token}"}, at="follower"),
            Open("k", "Lease/LeaseKeepAlive", metadata={"token": "{root_token}"}, at="follower"),
            Send("k", {"ID": 5}),
            Take("k", responses=1),
            auth("UserAdd", "root_token", name="alice", password="alicepw"),
            login("alice", "alicepw"),
            # Etcd's followers may not know it yet.
            Until(Call("Auth/UserGet", {"name": "alice"}, {"token": "{alice_token}"}, at="follower"), '"OK"'),
            Call("KV/Range", {"key": "a"}, {"token": "{alice_token}"}, at="follower"),
        ),
        members=3,
    ),
)
