"""Where a request is too much: sizes and counts, at the last that is taken and the first that is not."""

from tests.conformance.etcd.scenarios.ranges import get, put
from tests.conformance.etcd.scenarios.transactions import compare, op_get, op_put, op_txn, txn
from tests.conformance.etcd.steps import Call, Ctl, Fetch, Scenario

MAX_REQUEST_BYTES = 1_572_864
MAX_TXN_OPS = 128
GRPC_OVERHEAD_BYTES = 512 * 1024
FRAME_BYTES = 8
"""Tags and lengths of a put of one key and a large value."""


def puts(count: int) -> list[dict[str, object]]:
    return [op_put(f"k{number}") for number in range(count)]


SCENARIOS = (
    Scenario(
        "limits: bytes",
        (
            put("big", "x" * 1_000_000),
            get(key="big"),
            put("big", "x" * (MAX_REQUEST_BYTES - FRAME_BYTES - 100)),
            put("big", "x" * (MAX_REQUEST_BYTES + 1)),
            put("big", "x" * (MAX_REQUEST_BYTES + GRPC_OVERHEAD_BYTES - FRAME_BYTES - 100)),
            put("big", "x" * (MAX_REQUEST_BYTES + GRPC_OVERHEAD_BYTES + 1)),
            put("k" * 100_000, "long key"),
            txn(success=[op_put("a", "x" * 800_000), op_put("b", "x" * 800_000)]),
            Ctl("put big", stdin="x" * 1_600_000),
            get(key="\0", range_end="\0", keys_only=True),
        ),
    ),
    Scenario(
        "limits: operations of a transaction",
        (
            txn(success=puts(MAX_TXN_OPS)),
            txn(success=puts(MAX_TXN_OPS + 1)),
            txn(failure=puts(MAX_TXN_OPS + 1)),
            txn([compare("k", "VERSION", "EQUAL", 0)] * MAX_TXN_OPS),
            txn([compare("k", "VERSION", "EQUAL", 0)] * (MAX_TXN_OPS + 1)),
            txn(success=[op_get(key="k1")] * (MAX_TXN_OPS + 1)),
            txn(success=[*puts(60), op_txn(success=puts(60))]),
            txn(success=[op_txn(success=[op_get(key="k")] * 127)]),
            txn(success=[op_txn(success=[op_get(key="k")] * 128)]),
            txn(success=[op_get(key="k")] * 100 + [op_txn(success=[op_get(key="k")] * 27)]),
            txn(success=[op_get(key="k")] * 100 + [op_txn(success=[op_get(key="k")] * 28)]),
            get(key="\0", range_end="\0", count_only=True),
        ),
    ),
    Scenario(
        "what no server has",
        (
            Call("KV/Range", {"key": "k"}, {"hasleader": "true"}),
            Call("KV/Range", {"key": "k"}, {"client-api-version": "3.4.0"}),
            Call("KV/Range", {"key": "k"}, {"client-api-version": "nonsense"}),
        ),
    ),
    Scenario(
        "plain HTTP",
        (Fetch("/health"), Fetch("/version"), Fetch("/nowhere"), Fetch("/health?serializable=true")),
        since=(3, 5),
    ),
)
