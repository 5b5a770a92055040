"""Locks and elections: who gets them, who waits, and what those leave that go away while they wait."""

from dataclasses import replace
from typing import Any

from tests.conformance.etcd.scenarios.auth import auth, grant
from tests.conformance.etcd.scenarios.auth_keys import ALICE_IN, as_alice
from tests.conformance.etcd.scenarios.leases import grant as lease
from tests.conformance.etcd.scenarios.leases import revoke
from tests.conformance.etcd.scenarios.ranges import ALL, get, put
from tests.conformance.etcd.steps import Call, Cancel, Close, Do, Open, Scenario, Send, Step, Take, Until

LEASES = (lease(0x77, 600), lease(0x78, 600), lease(0x79, 600))
FIRST, SECOND, THIRD = 0x77, 0x78, 0x79
KEYS = get(**ALL, sort_target="CREATE", sort_order="ASCEND")


def lock(by: int, name: str = "l") -> Call:
    return Call("Lock/Lock", {"name": name, "lease": by})


def unlock(key: str) -> Call:
    return Call("Lock/Unlock", {"key": key})


def begin(stream: str, method: str, count: int, **request: Any) -> tuple[Step, ...]:
    """A call that goes on while others are made; returns when there are `count` keys."""
    return Open(stream, method), Send(stream, request), Close(stream), keys(count)


def keys(count: int) -> Step:
    """Waits until there are so many keys, one at least."""
    return Until(get(**ALL, count_only=True), f'"count": {count}')


def campaign(by: int, value: str = "v", name: str = "e") -> Call:
    return Call("Election/Campaign", {"name": name, "lease": by, "value": value})


def leader(name: str = "e") -> Call:
    return Call("Election/Leader", {"name": name})


def key_of(by: int, revision: str) -> dict[str, Any]:
    return {"name": "e", "key": f"e/{by:x}", "rev": revision, "lease": by}


def proclaim(by: int, revision: str, value: str) -> Call:
    return Call("Election/Proclaim", {"leader": key_of(by, revision), "value": value})


def resign(by: int, revision: str) -> Call:
    return Call("Election/Resign", {"leader": key_of(by, revision)})


SCENARIOS = (
    Scenario(
        "a lock that nobody else wants",
        (
            *LEASES,
            lock(FIRST),
            KEYS,
            lock(FIRST),
            lock(FIRST, "other"),
            lock(FIRST, ""),
            lock(FIRST, "l/77"),
            unlock("l/77"),
            unlock("l/77"),
            unlock("nothing"),
            unlock(""),
            lock(0x123),
            # The key of a lock whose name begins alike is in its way.
            replace(lock(FIRST), patience=2.0),
            revoke(FIRST),
            KEYS,
            lock(FIRST),
            Call("Lock/Lock", {"name": "own"}, save={"own_id": "response.key"}),
            get(**ALL, keys_only=True, count_only=True),
        ),
    ),
    Scenario(
        "locks are given in the order that they were asked for",
        (
            *LEASES,
            lock(FIRST),
            *begin("second", "Lock/Lock", 2, name="l", lease=SECOND),
            *begin("third", "Lock/Lock", 3, name="l", lease=THIRD),
            *begin("again", "Lock/Lock", 3, name="l", lease=SECOND),
            put("l/zz", "is no contender's"),
            KEYS,
            unlock("l/77"),
            Take("second", responses=1, end=True),
            Take("again", responses=1, end=True),
            KEYS,
            unlock("l/78"),
            Take("third", responses=1, end=True),
            KEYS,
        ),
    ),
    Scenario(
        "a waiting lock whose client goes away leaves no key",
        (
            *LEASES,
            lock(FIRST),
            *begin("second", "Lock/Lock", 2, name="l", lease=SECOND),
            *begin("third", "Lock/Lock", 3, name="l", lease=THIRD),
            Cancel("second"),
            keys(2),
            KEYS,
            unlock("l/77"),
            Take("third", responses=1, end=True),
            KEYS,
        ),
    ),
    Scenario(
        "a waiting lock whose lease ends",
        (
            *LEASES,
            lock(FIRST),
            *begin("second", "Lock/Lock", 2, name="l", lease=SECOND),
            revoke(SECOND),
            KEYS,
            unlock("l/77"),
            # Etcd 3.4 says that it has the lock, whose key is gone.
            Take("second", end=True, since=(3, 5)),
            KEYS,
        ),
    ),
    Scenario(
        "locks with users",
        (
            *ALICE_IN,
            as_alice("Lease/LeaseGrant", ID=FIRST, TTL=600),
            as_alice("Lock/Lock", name="m", lease=FIRST),
            as_alice("Lock/Lock", name="q", lease=FIRST),
            as_alice("Lock/Unlock", key="q/77"),
            as_alice("Lock/Unlock", key="m/77"),
            lock(FIRST),
            unlock("m/77"),
            as_alice("Election/Campaign", name="m", lease=FIRST, value="v"),
            as_alice("Election/Campaign", name="q", lease=FIRST, value="v"),
            as_alice("Election/Leader", name="m"),
            as_alice("Election/Leader", name="q"),
            leader("m"),
            auth("RoleAdd", "root_token", name="only"),
            grant("only", "WRITE", "w/", "w0", token="root_token"),
            auth("UserGrantRole", "root_token", user="alice", role="only"),
            as_alice("Lock/Lock", name="w", lease=FIRST),
            as_alice("Election/Campaign", name="w", lease=FIRST, value="v"),
        ),
    ),
    Scenario(
        "an election with one candidate",
        (
            *LEASES,
            leader(),
            campaign(FIRST, "a"),
            leader(),
            campaign(FIRST, "a"),
            campaign(FIRST, "b"),
            leader(),
            proclaim(FIRST, "{base+1}", "c"),
            leader(),
            proclaim(FIRST, "{base+9}", "d"),
            proclaim(SECOND, "{base+1}", "d"),
            resign(FIRST, "{base+9}"),
            leader(),
            resign(FIRST, "{base+1}"),
            leader(),
            proclaim(FIRST, "{base+1}", "d"),
            resign(FIRST, "{base+1}"),
            campaign(0x123),
            campaign(FIRST, "", ""),
            Call("Election/Proclaim", {"value": "x"}),
            Call("Election/Resign"),
            Call("Election/Proclaim", {"leader": {"name": "e", "lease": FIRST}, "value": "x"}),
            Call("Election/Resign", {"leader": {"name": "e", "lease": FIRST}}),
            KEYS,
        ),
    ),
    Scenario(
        "candidates wait for each other",
        (
            *LEASES,
            campaign(FIRST, "one"),
            *begin("second", "Election/Campaign", 2, name="e", lease=SECOND, value="two"),
            *begin("third", "Election/Campaign", 3, name="e", lease=THIRD, value="three"),
            KEYS,
            leader(),
            Cancel("second"),
            keys(2),
            resign(FIRST, "{base+1}"),
            Take("third", responses=1, end=True),
            leader(),
            KEYS,
        ),
    ),
    Scenario(
        "leaders are observed",
        (
            *LEASES,
            Open("seen", "Election/Observe"),
            Send("seen", {"name": "e"}),
            Close("seen"),
            Do(campaign(FIRST, "one")),
            Take("seen", responses=1),
            proclaim(FIRST, "{base+1}", "uno"),
            Take("seen", responses=1),
            *begin("second", "Election/Campaign", 2, name="e", lease=SECOND, value="two"),
            resign(FIRST, "{base+1}"),
            Take("seen", responses=1),
            Take("second", responses=1, end=True),
            revoke(SECOND),
            campaign(THIRD, "three"),
            Take("seen", responses=1),
            Cancel("seen"),
        ),
    ),
)
