"""Every method over the JSON gateway, and what it makes of requests that are not as they should be."""

import json
from base64 import b64encode
from dataclasses import replace
from typing import Any

from tests.conformance.etcd.steps import Do, Fetch, Post, Scenario, Step

GATEWAY_V2 = (3, 6)
"""Etcd has another gateway since then: it answers 400 where the old one answered 412, refuses a wrong path or method in
JSON, takes numbers, enums and base64 in more forms, of a `oneof` one field, and tells that a token is wanted."""
STATUS_SINCE = (3, 5)
"""`auth/status` and `maintenance/downgrade` are there since then."""
ALARM_SINCE = (3, 5)
"""Its answers have a header since then."""
HASH_KV_SINCE = (3, 6)
"""It has its own path since then."""
NEGATIVE_SINCE = (3, 5)
"""A watch from a negative revision is refused since then."""
REASON_SINCE = (3, 5)
"""`/health` tells a reason since then."""
CHECKS_SINCE = (3, 5)
"""`/livez` and `/readyz` came with late releases of 3.4 and 3.5."""
STORAGE_SINCE = (3, 6)
"""`/version` tells that of the storage since then."""
LARGE = 5 << 19
"""More than a request may have, though not as JSON."""


def b64(text: str) -> str:
    return b64encode(text.encode("latin-1")).decode()


def post(path: str, **body: Any) -> Post:
    return Post(f"/v3/{path}", body)


def raw(path: str, body: str) -> Post:
    return Post(f"/v3/{path}", body)


def put(key: str, value: str = "", **more: Any) -> Post:
    return post("kv/put", key=b64(key), value=b64(value), **more)


def get(key: str, **more: Any) -> Post:
    return post("kv/range", key=b64(key), **more)


def stream(path: str, lines: int, *objects: Any) -> Post:
    return Post(f"/v3/{path}", "\n".join(map(json.dumps, objects)), lines=lines)


def later(step: Step, since: tuple[int, int] = GATEWAY_V2) -> Step:
    """The step is left out beside an older etcd."""
    return replace(step, since=since)


def signed(path: str, token: str, **body: Any) -> Post:
    return Post(f"/v3/{path}", body, {"Authorization": token})


KEY = b64("k")
TXN = {
    "compare": [
        {"key": b64("a"), "target": "VALUE", "result": "EQUAL", "value": b64("1")},
        {"key": b64("a"), "target": "VERSION", "result": "GREATER", "version": "0"},
        {"key": b64("a"), "target": "LEASE", "lease": 0},
    ],
    "success": [
        {"request_put": {"key": b64("t"), "value": b64("in"), "prev_kv": True}},
        {"request_range": {"key": b64("a"), "range_end": b64("z")}},
        {"request_delete_range": {"key": b64("t"), "prev_kv": True}},
        {"requestTxn": {"success": [{"requestRange": {"key": b64("a"), "countOnly": True}}]}},
    ],
    "failure": [{"request_range": {"key": b64("a")}}],
}
MALFORMED = (
    "{",
    '{"key":"Zm9v"',
    "}",
    "[]",
    "1",
    '"x"',
    "x",
    '{"key":5}',
    '{"key":"###"}',
    '{"key":"Zm9v",}',
    '{"key":"Zm9v","limit":"x"}',
    '{"key":"Zm9v","limit":1.5}',
    '{"key":"Zm9v","limit":9223372036854775808}',
    '{"key":"Zm9v","serializable":"true"}',
    '{"key":"Zm9v","serializable":1}',
    '{"key":"Zm9v","sort_order":1.5}',
    '{"key":["Zm9v"]}',
    '{"key":{"a":"b"}}',
)
LENIENT = (
    "",
    "  \n",
    "{}",
    '{"key":"Zm9v"} and more',
    '{"key":"Zm9v"}{"key":"YQ=="}',
    '{"key":null}',
    '{"key":"Zm9v","bogus":{"a":[1]}}',
    '{"key":"Zm9v","sort_order":"DESCEND","sort_target":"MOD"}',
    '{"key":"Zm9v","sort_order":1,"sort_target":3}',
    '{"key":"Zm9v","sortOrder":"ASCEND","keysOnly":true}',
    '{"key":"Zm9v","limit":"5"}',
    '{"key":"//+/"}',
)
LENIENT_LATER = (
    "null",
    '{"key":"Zm9v","sort_order":"BOGUS"}',
    '{"key":"Zm9v","limit":1e1}',
    '{"key":"Zm9v","limit":5.0}',
    '{"key":"Zm9"}',
    '{"key":"__-_"}',
)
"""What the old gateway refuses, and `null`, which is nothing to it and malformed to the new one."""


def users() -> tuple[Step, ...]:
    root = {"name": "root", "password": "rootpw"}
    return (
        later(post("auth/status"), STATUS_SINCE),
        post("auth/user/add", name="root", password="rootpw"),
        later(post("auth/user/add", name="root", password="rootpw")),
        post("auth/user/add", name="none", options={"no_password": True}),
        later(post("auth/enable")),
        post("auth/role/add", name="root"),
        post("auth/user/grant", user="root", role="root"),
        post("auth/role/add", name="r"),
        post("auth/role/grant", name="r", perm={"permType": "READWRITE", "key": KEY, "range_end": b64("l")}),
        post("auth/role/grant", name="r", perm={"key": b64("x")}),
        post("auth/role/get", role="r"),
        post("auth/role/list"),
        post("auth/user/add", name="alice", password="alicepw"),
        post("auth/user/grant", user="alice", role="r"),
        post("auth/user/get", name="alice"),
        post("auth/user/list"),
        post("auth/user/changepw", name="alice", password="other"),
        post("auth/enable"),
        post("auth/authenticate", name="alice", password="alicepw"),
        Post("/v3/auth/authenticate", {"name": "alice", "password": "other"}, save={"alice_token": "data.token"}),
        Post("/v3/auth/authenticate", root, save={"root_token": "data.token"}),
        put("k", "1"),
        signed("kv/put", "{alice_token}", key=KEY, value=KEY),
        signed("kv/put", "{alice_token}", key=b64("q"), value=KEY),
        later(signed("kv/put", "nonsense", key=KEY)),
        signed("kv/range", "{alice_token}", key=KEY),
        Post("/v3/kv/range", {"key": KEY}, {"Grpc-Metadata-Token": "{alice_token}"}),
        signed("lock/lock", "{alice_token}", name=KEY, lease="5"),
        later(signed("maintenance/snapshot", "{alice_token}")),
        Post("/v3/watch", '{"create_request":{"key":"cQ=="}}', {"Authorization": "{alice_token}"}, lines=1),
        Post("/v3/watch", '{"create_request":{"key":"aw=="}}', {"Authorization": "{alice_token}"}, lines=1),
        signed("auth/role/revoke", "{root_token}", role="r", key=b64("x")),
        signed("auth/user/revoke", "{root_token}", name="alice", role="r"),
        signed("auth/role/delete", "{root_token}", role="r"),
        signed("auth/user/delete", "{root_token}", name="alice"),
        signed("auth/disable", "{root_token}"),
    )


SCENARIOS = (
    Scenario(
        "gateway: keys",
        (
            put("a", "1"),
            put("a", "2", prev_kv=True),
            put("b", '<&>"\\\0\u00ff'),
            put("c", ignore_value=True),
            put("c", lease="77"),
            get("a"),
            get("a", range_end=b64("z"), sort_order="DESCEND", sort_target="MOD", limit="1"),
            get("a", range_end=b64("z"), keys_only=True),
            get("a", range_end=b64("z"), count_only=True),
            get("a", revision="{base+1}"),
            get("a", revision=1_000_000),
            get("nothing"),
            post("kv/txn", **TXN),
            post("kv/txn", compare=[], failure=[]),
            post("kv/txn", success=TXN["success"]),
            post("kv/txn", success=[{"request_put": {"key": KEY}}, {"request_put": {"key": KEY}}]),
            later(post("kv/txn", success=[{"request_put": {"key": KEY}, "request_range": {"key": KEY}}])),
            post("kv/deleterange", key=b64("a"), range_end=b64("c"), prev_kv=True),
            post("kv/deleterange", key=b64("a")),
            post("kv/compaction", revision="{base+2}", physical=True),
            post("kv/compaction", revision="{base+2}"),
            get("a", revision="{base+1}"),
        ),
    ),
    Scenario(
        "gateway: requests that are not as they should be",
        (
            *(raw("kv/range", body) for body in MALFORMED),
            *(raw("kv/range", body) for body in LENIENT),
            *(later(raw("kv/range", body)) for body in LENIENT_LATER),
            *(
                later(Post("/v3/kv/range", {"key": KEY}, method=method))
                for method in ("GET", "PUT", "DELETE", "HEAD", "PATCH")
            ),
            *(later(post(path)) for path in ("kv/nothing", "kv/range/", "")),
            Post("/v3beta/kv/range", {"key": KEY}),
            Post("/v3alpha/kv/range", {"key": KEY}),
            Post("/v3/kv/range?key=YQ==", {"key": KEY}),
            Post("/v3/kv/range", {"key": KEY}, {"Content-Type": "text/plain"}),
            Post("/v3/kv/range", {"key": KEY}, {"Grpc-Metadata-hasleader": "true"}),
            put("big", "x" * LARGE),
        ),
    ),
    Scenario(
        "gateway: leases",
        (
            post("lease/grant", ID="77", TTL="600"),
            later(post("lease/grant", ID=77, TTL=600)),
            post("lease/grant", TTL="99999999999"),
            put("l", "1", lease="77"),
            get("l"),
            post("lease/timetolive", ID="77", keys=True),
            post("kv/lease/timetolive", ID="77"),
            post("lease/timetolive", ID="78"),
            post("lease/leases"),
            post("kv/lease/leases"),
            stream("lease/keepalive", 2, {"ID": "77"}, {"ID": "78"}),
            post("lease/revoke", ID="77"),
            post("kv/lease/revoke", ID="77"),
        ),
    ),
    Scenario(
        "gateway: watches",
        (
            put("k", "1"),
            put("k", "2"),
            post("kv/deleterange", key=KEY),
            Post("/v3/watch", {"create_request": {"key": KEY, "start_revision": "{base+1}"}}, lines=2),
            stream("watch", 2, {"create_request": {"key": KEY, "start_revision": 1_000_000}}, {"cancel_request": {}}),
            stream("watch", 1, {"create_request": {"key": b64("b"), "range_end": b64("a")}}),
            stream("watch", 1, {"createRequest": {"filters": ["NOPUT", 1], "watchId": "5"}}),
            later(stream("watch", 1, {"create_request": {"key": KEY, "start_revision": "-1"}}), NEGATIVE_SINCE),
        ),
    ),
    Scenario(
        "gateway: locks and elections",
        (
            post("lease/grant", ID="77", TTL="600"),
            post("lock/lock", name=b64("l"), lease="77"),
            post("lock/lock", name=b64("l"), lease="78"),
            post("lock/unlock", key=b64("l/4d")),
            post("lock/unlock"),
            post("election/leader", name=b64("e")),
            post("election/campaign", name=b64("e"), lease="77", value=b64("v")),
            post("election/leader", name=b64("e")),
            stream("election/observe", 1, {"name": b64("e")}),
            post("election/proclaim", leader={"name": b64("e"), "key": b64("e/4d"), "rev": "1", "lease": "77"}),
            post("election/proclaim"),
            post("election/resign"),
            post("election/resign", leader={"name": b64("e"), "key": b64("e/4d"), "rev": "{base+3}", "lease": "77"}),
        ),
    ),
    Scenario(
        "gateway: users",
        users(),
    ),
    Scenario(
        "gateway: members and maintenance",
        (
            post("cluster/member/list"),
            post("cluster/member/list", linearizable=True),
            post("cluster/member/add"),
            post("cluster/member/add", peerURLs=["http://127.0.0.1:1"], isLearner="yes"),
            post("cluster/member/remove", ID="1"),
            post("cluster/member/update", ID="1", peerURLs=["http://127.0.0.1:1"]),
            post("cluster/member/promote", ID="1"),
            later(post("maintenance/alarm"), ALARM_SINCE),
            later(post("maintenance/alarm", action="ACTIVATE", memberID="{leader}", alarm="CORRUPT"), ALARM_SINCE),
            later(post("maintenance/alarm", action="DEACTIVATE", memberID="{leader}", alarm="CORRUPT"), ALARM_SINCE),
            post("maintenance/defragment"),
            Do(post("maintenance/hash")),
            later(post("maintenance/hashkv", revision="1000000"), HASH_KV_SINCE),
            later(post("maintenance/transfer-leadership", targetID="1")),
            later(post("maintenance/downgrade", action="VALIDATE", version="x"), STATUS_SINCE),
            Do(stream("maintenance/snapshot", 1, {})),
        ),
    ),
    Scenario(
        "health and version",
        (
            *(Fetch(f"/health{query}", since=REASON_SINCE) for query in ("", "?serializable=true", "?exclude=NOSPACE")),
            *(
                Fetch(f"/{path}", since=CHECKS_SINCE)
                for path in (
                    "livez",
                    "livez?verbose",
                    "livez/serializable_read?verbose",
                    "livez/nothing",
                    "readyz",
                    "readyz/serializable_read?verbose",
                    "readyz/linearizable_read?verbose=1",
                    "readyz/data_corruption?verbose",
                    "readyz/non_learner?verbose",
                    "readyz?verbose&exclude=serializable_read&exclude=linearizable_read&exclude=non_learner",
                    "readyz?exclude=nothing",
                )
            ),
            Fetch("/version", since=STORAGE_SINCE),
            Fetch("/nothing"),
        ),
    ),
)
