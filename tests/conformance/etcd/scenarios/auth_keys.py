"""What users may do with keys: ranges, prefixes, transactions, watches."""

from dataclasses import replace
from typing import Any

from tests.conformance.etcd.scenarios.auth import ALICE, ON, ROOT, auth, grant, login
from tests.conformance.etcd.scenarios.transactions import op_delete, op_get, op_put
from tests.conformance.etcd.scenarios.watches import create
from tests.conformance.etcd.steps import Begin, Call, Ctl, Lines, Open, Scenario, Take

NESTED_SINCE = (3, 7)
"""Nested transactions are looked into since then, and since late releases of older ones."""
OPEN_SINCE = (3, 5)
"""Before, a range to the end was looked at as its first key alone, where it is watched."""


def as_alice(method: str, **request: Any) -> Call:
    return Call(method, request, {"token": "{alice_token}"})


def as_root(method: str, **request: Any) -> Call:
    return Call(method, request, {"token": "{root_token}"})


def txn(**request: Any) -> Call:
    return as_alice("KV/Txn", **request)


def version_is(key: str, version: int, **more: Any) -> dict[str, Any]:
    return {"key": key, "target": "VERSION", "result": "EQUAL", "version": version, **more}


ALICE_IN = (
    *ON,
    login("root", "rootpw"),
    auth("UserAdd", "root_token", name="alice", password="alicepw"),
    auth("RoleAdd", "root_token", name="r"),
    grant("r", "READ", "a", "c", token="root_token"),
    grant("r", "WRITE", "b", token="root_token"),
    grant("r", "READWRITE", "m/", "m0", token="root_token"),
    auth("UserGrantRole", "root_token", user="alice", role="r"),
    login("alice", "alicepw"),
)
"""Alice reads from a up to c, writes b, and does what she wants below m/."""

SCENARIOS = (
    Scenario(
        "etcdctl with users",
        (
            *ON,
            Ctl(f"user add alice:alicepw {ROOT}"),
            Ctl(f"role add r {ROOT}"),
            Ctl(f"role grant-permission r readwrite m/ --prefix {ROOT}"),
            Ctl(f"role grant-permission r read a {ROOT}"),
            Ctl(f"user grant-role alice r {ROOT}"),
            Ctl("put m/1 x"),
            Ctl(f"put m/1 x {ALICE}"),
            Ctl(f"put a x {ALICE}"),
            Ctl(f"put a x {ROOT}"),
            Ctl(f"get a {ALICE} -w json"),
            Ctl(f"get m/ --prefix {ALICE} -w json"),
            Ctl(f"get m --prefix {ALICE}"),
            Ctl(f"get '' --from-key {ALICE}"),
            Ctl(f"get '' --from-key {ROOT} -w json"),
            Ctl("get a"),
            Ctl(f"del m/ --prefix {ALICE}"),
            Ctl(f"del a {ALICE}"),
            Ctl(f"txn {ALICE}", stdin='ver("a") = "1"\n\nput m/1 y\n\nget b\n\n'),
            Ctl(f"txn {ALICE}", stdin='ver("a") = "1"\n\nput m/1 y\n\nget a\n\n'),
            Begin("denied", f"watch b {ALICE}"),
            Lines("denied"),
            Begin("nobody", "watch b"),
            Lines("nobody"),
        ),
    ),
    Scenario(
        "auth: reads",
        (
            *ALICE_IN,
            as_root("KV/Put", key="a", value="1"),
            as_root("KV/Put", key="b", value="2"),
            as_root("KV/Put", key="c", value="3"),
            *(
                as_alice("KV/Range", key=key, range_end=end)
                for key, end in (
                    ("a", ""),
                    ("c", ""),
                    ("a", "c"),
                    ("a", "b\0"),
                    ("a", "c\0"),
                    ("a", "\0"),
                    ("\0", "\0"),
                    ("0", "b"),
                    ("b", "a"),
                    ("c", "a"),
                    ("m/", "m0"),
                    ("m/1", "m/2"),
                    ("m/", "m1"),
                )
            ),
            as_alice("KV/Range", key="c", serializable=True),
            as_alice("KV/Range", key="a", serializable=True),
            as_alice("KV/Range", key="c", count_only=True),
            as_alice("KV/Range", key="", range_end="\0"),
            as_alice("KV/Range", key="c", revision=99999),
            as_alice("KV/Range", key="a", revision=99999),
            Call("KV/Range", {"key": "a"}),
            Call("KV/Range", {"key": "a", "serializable": True}),
            as_root("KV/Range", key="\0", range_end="\0"),
        ),
    ),
    Scenario(
        "auth: writes",
        (
            *ALICE_IN,
            as_alice("KV/Put", key="b", value="1"),
            as_alice("KV/Put", key="b", value="2", prev_kv=True),
            as_alice("KV/Put", key="a", value="1"),
            as_alice("KV/Put", key="c", value="1"),
            as_alice("KV/Put", key="", value="1"),
            as_alice("KV/Put", key="c", ignore_value=True),
            as_alice("KV/DeleteRange", key="b", prev_kv=True),
            as_alice("KV/DeleteRange", key="a"),
            as_alice("KV/DeleteRange", key="b", range_end="c"),
            as_alice("KV/DeleteRange", key="m/", range_end="m0", prev_kv=True),
            as_alice("KV/DeleteRange", key="\0", range_end="\0"),
            grant("r", "WRITE", "x", token="root_token"),
            as_alice("KV/Put", key="x", value="1"),
            as_alice("KV/Put", key="x", value="1", prev_kv=True),
            as_alice("KV/DeleteRange", key="x", prev_kv=True),
            as_alice("KV/DeleteRange", key="x"),
            Call("KV/Put", {"key": "b"}),
            Call("KV/DeleteRange", {"key": "b"}),
            Call("KV/Txn", {"success": [op_put("b", "1")]}),
            *(
                Call("KV/Compact", {"revision": "{base+1}"}, token, since=(3, 7))
                for token in ({}, {"token": "{alice_token}"}, {"token": "{root_token}"})
            ),
            as_root("KV/Range", key="\0", range_end="\0"),
        ),
    ),
    Scenario(
        "auth: transactions",
        (
            *ALICE_IN,
            as_root("KV/Put", key="a", value="1"),
            txn(compare=[version_is("a", 1)], success=[op_put("b", "1")], failure=[op_get(key="b")]),
            txn(compare=[version_is("c", 0)], success=[op_put("b", "1")]),
            txn(compare=[version_is("a", 1, range_end="c")], success=[op_put("b", "1")]),
            txn(compare=[version_is("a", 1, range_end="d")], success=[op_put("b", "1")]),
            txn(success=[op_put("a", "1")]),
            txn(success=[op_put("b", "1")], failure=[op_put("a", "1")]),
            txn(success=[op_put("b", "1")], failure=[op_get(key="c")]),
            txn(success=[op_put("b", "1")], failure=[op_delete(key="a")]),
            txn(success=[op_get(key="a"), op_get(key="b")]),
            txn(success=[op_get(key="a"), op_get(key="c")]),
            txn(success=[op_get(key="a")], failure=[op_get(key="c")]),
            txn(success=[{"request_txn": {"success": [op_put("b", "2")]}}]),
            *(
                replace(txn(success=[{"request_txn": nested}]), since=NESTED_SINCE)
                for nested in (
                    {"success": [op_put("a", "2")]},
                    {"compare": [version_is("c", 0)]},
                    {"failure": [op_get(key="c")]},
                )
            ),
            Call("KV/Txn", {"success": [op_get(key="a")]}),
            as_root("KV/Range", key="\0", range_end="\0"),
        ),
    ),
    Scenario(
        "auth: more and less permissions take effect at once",
        (
            *ALICE_IN,
            as_alice("KV/Put", key="x", value="1"),
            grant("r", "WRITE", "x", token="root_token"),
            as_alice("KV/Put", key="x", value="1"),
            grant("r", "READ", "x", token="root_token"),
            as_alice("KV/Put", key="x", value="1"),
            as_alice("KV/Range", key="x"),
            auth("RoleRevokePermission", "root_token", role="r", key="x"),
            as_alice("KV/Range", key="x"),
            auth("UserRevokeRole", "root_token", name="alice", role="r"),
            as_alice("KV/Range", key="a"),
            auth("UserGrantRole", "root_token", user="alice", role="root"),
            as_alice("KV/Range", key="a"),
            auth("RoleDelete", "root_token", role="r"),
            auth("UserDelete", "root_token", name="alice"),
            as_alice("KV/Range", key="a"),
        ),
    ),
    Scenario(
        "auth: watches",
        (
            *ALICE_IN,
            Open("w", metadata={"token": "{alice_token}"}),
            create("a"),
            create("a", range_end="c"),
            create("c"),
            create("a", range_end="d"),
            create("\0", range_end="\0"),
            create("m/1"),
            Take("w", responses=6),
            create("a", range_end="\0", since=OPEN_SINCE),
            Take("w", responses=1, since=OPEN_SINCE),
            create("c", start_revision=-1, since=(3, 5)),
            Take("w", responses=1, since=(3, 5)),
            as_root("KV/Put", key="a", value="1"),
            as_root("KV/Put", key="c", value="1"),
            as_root("KV/Put", key="m/1", value="1"),
            Take("w", events=3),
            Open("n"),
            create("a", stream="n"),
            Take("n", responses=1),
            Open("x", metadata={"token": "x.1"}),
            create("a", stream="x"),
            Take("x", responses=1),
        ),
    ),
)
