"""Reads and writes of keys by raw gRPC: every option, limit by limit, also those that etcdctl has no flag for."""

from collections.abc import Iterator
from typing import Any

from tests.conformance.etcd.steps import Call, Scenario, Step

ALL: dict[str, Any] = {"key": "\0", "range_end": "\0"}
SORT_TARGETS = ("KEY", "VERSION", "CREATE", "MOD", "VALUE")


def get(since: tuple[int, int] = (3, 4), **request: Any) -> Step:
    return Call("KV/Range", request, since=since)


def put(key: str, value: str = "", **request: Any) -> Step:
    return Call("KV/Put", {"key": key, "value": value, **request})


def delete(**request: Any) -> Step:
    return Call("KV/DeleteRange", request)


def compact(revision: int | str, **request: Any) -> Step:
    return Call("KV/Compact", {"revision": revision, **request})


FILL = (put("a", "5"), put("b", "4"), put("c", "3"), put("d", "2"), put("b", "1"), delete(key="c"), put("e", "0"))


def sorts() -> Iterator[Step]:
    for target in SORT_TARGETS:
        for order in ("NONE", "ASCEND", "DESCEND"):
            for limit in (0, 2):
                yield get(**ALL, sort_target=target, sort_order=order, limit=limit)


def filters() -> Iterator[Step]:
    for name in ("min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"):
        for revision in ("{base+2}", "{base+4}", "{base+5}", -1):
            yield get(**ALL | {name: revision})
        yield get(**ALL | {name: "{base+4}", "limit": 1})
        yield get(**ALL | {name: "{base+4}", "count_only": True})
        yield Call("KV/Range", {"key": "b", name: "{base+5}"})
    yield get(**ALL, min_mod_revision="{base+2}", max_mod_revision="{base+5}", sort_order="DESCEND", limit=1)


SCENARIOS = (
    Scenario("range: sort", (*FILL, *sorts())),
    Scenario("range: filters", (*FILL, *filters())),
    Scenario(
        "range: ends",
        (
            *FILL,
            get(key="a", range_end="c"),
            get(key="a", range_end="a"),
            get(key="b", range_end="a"),
            get(key="b", range_end="\0"),
            get(key="\0", range_end="c"),
            get(key="\0"),
            get(key="", range_end="\0"),
            get(key="a\0"),
            get(key="a", range_end="a\0"),
            put("\xff\xfe", "not UTF-8"),
            get(key="\xff", range_end="\0"),
            put("\0", "nul"),
            get(**ALL),
        ),
    ),
    Scenario(
        "range: limits, counts and revisions",
        (
            *FILL,
            *(get(**ALL, limit=limit) for limit in (-1, 0, 1, 3, 4, 5)),
            *(get(**ALL, limit=limit, count_only=True) for limit in (0, 1)),
            *(get(**ALL, limit=limit, keys_only=True) for limit in (0, 1)),
            get(key="b", limit=1, keys_only=True),
            get(key="b", count_only=True),
            get(key="c", count_only=True),
            *(get(**ALL, revision=f"{{base+{number}}}") for number in range(9)),
            *(get(**ALL, revision=f"{{base+{number}}}", limit=1) for number in (5, 6)),
            get(**ALL, revision="{base+6}", sort_order="DESCEND", sort_target="MOD", limit=2),
            get(**ALL, revision=-1),
            get(**ALL, serializable=True),
            get(key="b", revision="{base+2}"),
            get(key="c", revision="{base+6}"),
            get(key="c", revision="{base+5}", count_only=True),
            get(key="b", revision="{base+9}", serializable=True),
            get(key="b", sort_order=9, since=(3, 5)),
            get(key="b", sort_order=-1, since=(3, 5)),
        ),
    ),
    Scenario(
        "compaction",
        (
            *FILL,
            compact("{base+4}"),
            get(**ALL, revision="{base+3}"),
            get(**ALL, revision="{base+4}"),
            get(key="b", revision="{base+4}"),
            get(key="b", revision="{base+3}"),
            compact("{base+4}"),
            compact("{base+3}"),
            compact(0),
            compact(-1),
            compact("{base+8}"),
            compact("{base+7}", physical=True),
            get(key="c", revision="{base+7}"),
            get(key="c", revision="{base+6}"),
            get(**ALL),
            compact("{base+7}"),
        ),
    ),
    Scenario(
        "put: options",
        (
            Call("Lease/LeaseGrant", {"ID": 7, "TTL": 600}),
            put("k", "1", prev_kv=True),
            put("k", "2", prev_kv=True),
            put("k", "3", lease=7),
            put("k", ignore_value=True, prev_kv=True),
            put("k", "4", ignore_lease=True, lease=0),
            put("k", "5", lease=7),
            put("k", "6", ignore_lease=True, prev_kv=True),
            put("k", ignore_value=True, ignore_lease=True, prev_kv=True),
            get(key="k"),
            put("k", "7", ignore_value=True),
            put("k", "7", ignore_lease=True, lease=7),
            put("none", ignore_value=True),
            put("none", "1", ignore_lease=True),
            put("none", ignore_value=True, ignore_lease=True),
            put("k", "8", lease=99),
            put("k", "8", lease=-1),
            put("k", ignore_value=True, lease=99),
            put("", "1"),
            put("empty"),
            get(key="empty"),
            get(key="k"),
        ),
    ),
    Scenario(
        "delete: ranges",
        (
            *FILL,
            delete(key=""),
            delete(key="none"),
            delete(key="c"),
            delete(key="a", range_end="c", prev_kv=True),
            delete(key="a", range_end="c"),
            delete(key="e", range_end="d"),
            delete(key="d", range_end="\0", prev_kv=True),
            delete(**ALL, prev_kv=True),
            put("a", "again"),
            get(**ALL),
            get(**ALL, revision="{base+7}"),
        ),
    ),
)
