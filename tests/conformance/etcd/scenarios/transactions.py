"""Transactions by raw gRPC: every compare, ranges, nesting, and what is refused."""

from collections.abc import Iterator, Sequence
from typing import Any

from tests.conformance.etcd.scenarios.ranges import ALL, get, put
from tests.conformance.etcd.steps import Call, Open, Scenario, Send, Step, Take

Op = dict[str, Any]
UNIONS = {"VERSION": "version", "CREATE": "create_revision", "MOD": "mod_revision", "VALUE": "value", "LEASE": "lease"}
RESULTS = ("EQUAL", "GREATER", "LESS", "NOT_EQUAL")


def txn(compare: Sequence[Op] = (), success: Sequence[Op] = (), failure: Sequence[Op] = (), **kept: Any) -> Step:
    return Call("KV/Txn", {"compare": compare, "success": success, "failure": failure}, **kept)


def op_put(key: str, value: str = "", **request: Any) -> Op:
    return {"request_put": {"key": key, "value": value, **request}}


def op_get(**request: Any) -> Op:
    return {"request_range": request}


def op_delete(**request: Any) -> Op:
    return {"request_delete_range": request}


def op_txn(compare: Sequence[Op] = (), success: Sequence[Op] = (), failure: Sequence[Op] = ()) -> Op:
    return {"request_txn": {"compare": compare, "success": success, "failure": failure}}


def compare(key: str, target: str, result: str, value: Any, **more: Any) -> Op:
    return {"key": key, "target": target, "result": result, UNIONS[target]: value, **more}


def compares() -> Iterator[Step]:
    """Each target and result against a value below, at and above what is there; and for a key that is not there."""
    values: dict[str, Sequence[Any]] = {
        "VERSION": (1, 2, 3),
        "CREATE": ("{base}", "{base+1}", "{base+2}"),
        "MOD": ("{base+1}", "{base+2}", "{base+3}"),
        "VALUE": ("a", "v2", "z"),
        "LEASE": (6, 7, 8),
    }
    for target, tried in values.items():
        for result in RESULTS:
            for value in tried:
                yield txn([compare("k", target, result, value)])
            for key, end in (("none", ""), ("k", "m"), ("x", "z"), ("k", "\0")):
                value = "" if target == "VALUE" else 0
                yield txn([compare(key, target, result, value, range_end=end)])


def nested(depth: int) -> Op:
    return op_txn(success=[nested(depth - 1)]) if depth else op_put("deep", "1")


SCENARIOS = (
    Scenario(
        "txn: compares",
        (
            Call("Lease/LeaseGrant", {"ID": 7, "TTL": 600}),
            put("k", "v1"),
            put("k", "v2", lease=7),
            put("l", "v3"),
            *compares(),
            txn([compare("k", "VERSION", "EQUAL", 2), compare("l", "VERSION", "EQUAL", 1)], [op_get(key="k")]),
            txn([compare("k", "VERSION", "EQUAL", 2), compare("l", "VERSION", "EQUAL", 2)], [], [op_get(key="l")]),
            txn([{"key": "k", "target": "VERSION", "result": "GREATER"}]),
            txn([{"key": "k", "target": "MOD", "result": "EQUAL", "version": 2}]),
            txn([{"key": "k", "target": "VALUE", "result": "EQUAL"}]),
            txn([{"key": "", "target": "VERSION", "result": "EQUAL", "version": 1}]),
            txn([{"key": "k", "target": 9, "result": "EQUAL", "version": 1}]),
            txn([{"key": "k", "target": "VERSION", "result": 9, "version": 1}]),
        ),
    ),
    Scenario(
        "txn: operations",
        (
            put("a", "1"),
            put("b", "2"),
            txn(),
            txn(success=[op_get(**ALL)]),
            txn(success=[op_get(**ALL, serializable=True)]),
            txn(success=[op_get(**ALL, count_only=True), op_get(key="none")]),
            txn(success=[op_put("a", "3", prev_kv=True), op_get(key="a"), op_put("c", "4"), op_get(**ALL)]),
            txn(success=[op_get(key="a", revision="{base+1}"), op_put("d")]),
            txn(success=[op_get(key="a", revision="{base+3}"), op_put("e")]),
            txn(success=[op_put("f"), op_get(key="f", revision="{base+5}")]),
            txn(success=[op_delete(key="a", prev_kv=True), op_delete(key="none"), op_get(key="a")]),
            txn(success=[op_delete(key="none")]),
            txn(success=[op_delete(**ALL, prev_kv=True), op_get(**ALL)]),
            txn(success=[op_delete(key="a"), op_delete(key="a")]),
            txn(success=[op_delete(key="x"), op_delete(**ALL)]),
            txn([compare("a", "VERSION", "EQUAL", 1)], [op_put("s")], [op_put("f", "1"), op_get(key="f")]),
            get(**ALL),
        ),
    ),
    Scenario(
        "txn: nested",
        (
            put("a", "1"),
            txn(success=[op_txn(success=[op_put("b", "2"), op_get(key="b")])]),
            txn(
                success=[op_put("a", "3"), op_txn([compare("a", "VALUE", "EQUAL", "3")], [op_put("c")], [op_put("d")])]
            ),
            txn(
                success=[op_txn([compare("a", "VERSION", "EQUAL", 9)], [op_put("x")], [op_txn(success=[op_put("y")])])]
            ),
            txn(success=[op_txn(success=[op_get(key="a")]), op_txn(success=[op_get(key="b", serializable=True)])]),
            txn(success=[op_txn()]),
            txn(success=[op_put("a"), op_txn(success=[op_put("a")])]),
            txn(success=[op_txn(success=[op_put("a")]), op_txn(success=[op_put("a")])]),
            txn(success=[op_txn(success=[op_put("a", "s")], failure=[op_put("a", "f")])]),
            txn(success=[op_txn(success=[op_delete(key="a")]), op_put("a")]),
            txn(success=[op_txn(success=[op_put("a", "p")]), op_delete(key="b")]),
            txn(success=[nested(20)]),
            txn(success=[op_txn([compare("", "VERSION", "EQUAL", 9)])]),
            txn(success=[op_txn(success=[op_put("")])]),
            get(**ALL),
        ),
    ),
    Scenario(
        "txn: refusals",
        (
            put("a", "1"),
            txn(success=[op_put("k"), op_put("k")]),
            txn(failure=[op_put("k"), op_put("k")]),
            txn(success=[op_put("k"), op_delete(key="k")]),
            txn(success=[op_delete(key="k"), op_put("k")]),
            txn(success=[op_delete(**ALL), op_put("k")]),
            txn(success=[op_put("k"), op_delete(key="a", range_end="c")]),
            txn(success=[op_put("k")], failure=[op_put("k")]),
            txn(success=[op_put("b"), op_delete(key="a", range_end="\0")]),
            txn(success=[op_put("")]),
            txn(success=[op_get(key="")]),
            txn(success=[op_delete(key="")]),
            txn(success=[{}]),
            txn(success=[op_put("n", ignore_value=True)]),
            txn(success=[op_put("n", "v", ignore_value=True)]),
            txn(success=[op_put("n", lease=99)]),
            txn(success=[op_put("ok"), op_put("n", lease=99)]),
            txn(success=[op_put("m"), op_put("n", ignore_lease=True)]),
            txn(success=[op_get(key="a", revision="{base+99}")]),
            txn(success=[op_put("m"), op_get(key="a", revision="{base+99}")]),
            txn(success=[op_get(key="a", sort_order=7)], since=(3, 5)),
            txn([compare("a", "VERSION", "EQUAL", 9)], success=[op_put("n", lease=99)]),
            Call("KV/Compact", {"revision": "{base+2}"}),
            txn(success=[op_get(key="a", revision="{base+1}")]),
            txn(success=[op_put("m"), op_get(key="a", revision="{base+1}")]),
            get(**ALL),
        ),
    ),
    Scenario(
        "txn: a deletion without an end beside puts",
        (
            put("a", "1"),
            put("b", "2"),
            Open("w"),
            Send("w", {"create_request": {"key": "a", "range_end": "\0", "prev_kv": True}}),
            Take("w", responses=1),
            txn(success=[op_delete(**ALL, prev_kv=True), op_put("b", "3", prev_kv=True), op_get(**ALL)]),
            Take("w", events=3),
            # Without the previous values: see docs/etcd-differences.md.
            Send("w", {"cancel_request": {"watch_id": 0}}),
            Send("w", {"create_request": {"key": "a", "range_end": "\0", "watch_id": 1}}),
            Take("w", responses=2),
            txn(success=[op_put("c", "4"), op_delete(key="b", range_end="\0", prev_kv=True), op_get(**ALL)]),
            Take("w", events=3),
            txn(success=[op_delete(key="a", range_end="\0"), op_put("c", "5")]),
            Take("w", events=1),
            get(**ALL),
            *(get(**ALL, revision=f"{{base+{number}}}") for number in (2, 3, 4)),
            Call("KV/Compact", {"revision": "{base+4}"}),
            get(**ALL, revision="{base+4}"),
            get(**ALL),
            Send("w", {"create_request": {"key": "a", "range_end": "\0", "start_revision": "{base+4}", "watch_id": 2}}),
            Take("w", responses=1, events=1, since=(3, 5)),
        ),
    ),
)
