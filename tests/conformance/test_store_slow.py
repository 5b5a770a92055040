"""Slow requests are logged in etcd's words and under its names, without values, and few of them."""

from __future__ import annotations

import http.client
import json
import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from benchmarks import peers
from tests.conformance.members import OURS, Members, until

FLAGS = ["--warning-apply-duration=1ms", "--warning-unary-request-duration=1ms"]
APPLY, STATS = "apply request took too long", "request stats"
KEYS = 20_000
AT_ONCE = 100
SECRET = "a-value-that-no-log-shows"
BETWEEN_LINES_S = 40.0
"""Ours writes ten lines of a kind in ten seconds."""
PAUSES = ("left-out", "error", "remote")
"""Fields that are there at times, or only with etcd."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Members, Members]]:
    etcd, why = peers.newest()
    if etcd is None:
        pytest.skip(why)
    directory = tmp_path_factory.mktemp("slow")
    theirs = Members(directory / "etcd", 1, [*FLAGS, "--log-level=warn"], etcd.command)
    ours = Members(directory / "ours", 1, [*FLAGS, "--log-level=warn"], OURS)
    try:
        for members in (theirs, ours):
            members.start()
            filled(members)
        yield theirs, ours
    finally:
        theirs.close()
        ours.close()


def text(value: str) -> str:
    return b64encode(value.encode()).decode()


def post(members: Members, path: str, request: dict[str, Any]) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", members.members[0].client_port, timeout=30)
    try:
        connection.request("POST", path, json.dumps(request))
        answer = connection.getresponse()
        told: dict[str, Any] = json.loads(answer.read())
        assert answer.status == 200, told
        return told
    finally:
        connection.close()


def put(number: int) -> dict[str, Any]:
    return {"key": text(f"k{number:06}"), "value": text(SECRET)}


def filled(members: Members) -> None:
    for first in range(0, KEYS, AT_ONCE):
        puts = [{"request_put": put(number)} for number in range(first, first + AT_ONCE)]
        post(members, "/v3/kv/txn", {"success": puts})


ALL = {"key": text("k"), "range_end": text("l")}
READ = {"success": [{"request_range": ALL}]}


def lines(members: Members, message: str, request: str) -> list[dict[str, Any]]:
    """The lines of its log with this message and a request that begins so, without what numbers it."""
    found = [line for line in members.members[0].told() if line.get("msg") == message]
    field = "request" if message == APPLY else "request content"
    for line in found:
        # Go's texts have one space or two between fields, as the program was built.
        line[field] = re.sub(" +", " ", line[field])
    return [line for line in found if re.sub(r"^header:[<{]ID:\d+ ?[>}] ", "", line[field]).startswith(request)]


def line_of(members: Members, message: str, request: str, work: Callable[[], object]) -> dict[str, Any]:
    """The first of those, while `work` goes on."""

    def worked() -> list[dict[str, Any]]:
        work()
        return lines(members, message, request)

    line: dict[str, Any] = until(f"{message}: {request}", worked, BETWEEN_LINES_S)[0]
    return line


def shape(line: dict[str, Any]) -> dict[str, Any]:
    """A line without times and ids."""
    kept = {name: value for name, value in line.items() if name not in (*PAUSES, "ts", "caller", "start time")}
    for name in ("took", "time spent"):
        if name in kept:
            kept[name] = bool(re.fullmatch(r"[\d.]+(µs|ms|s)", kept[name]))
    for name in ("request", "response", "request content"):
        if name in kept:
            kept[name] = re.sub(r"ID:\d+", "ID", re.sub(r"size:\d+$", "size", kept[name]))
    return {name: value for name, value in kept.items() if name not in ("response size", "request size")}


RANGE = 'key:"k" range_end:"l"'


@pytest.mark.parametrize(
    ("message", "request_text", "path", "request_"),
    [
        (APPLY, RANGE, "/v3/kv/range", ALL),
        (STATS, RANGE, "/v3/kv/range", ALL),
        (STATS, RANGE + " keys_only:true", "/v3/kv/range", ALL | {"keys_only": True}),
        (APPLY, f"compare:<> success:<request_range:{{{RANGE}}}> failure:<>", "/v3/kv/txn", READ),
        (STATS, 'key:"k000001" value_size:', "/v3/kv/put", put(1)),
    ],
)
def test_lines_are_etcds(
    pair: tuple[Members, Members], message: str, request_text: str, path: str, request_: dict[str, Any]
) -> None:
    theirs, ours = (shape(line_of(side, message, request_text, partial(post, side, path, request_))) for side in pair)
    assert ours == theirs


def test_a_slow_change_is_told_with_its_request(pair: tuple[Members, Members]) -> None:
    """A deletion of many keys; they are put again each time."""
    wanted = "delete_range:{" + RANGE

    def work(side: Members) -> None:
        post(side, "/v3/kv/deleterange", ALL)
        filled(side)

    theirs, ours = (shape(line_of(side, APPLY, wanted, partial(work, side))) for side in pair)
    for line in (theirs, ours):
        line["request"] = re.sub(r"header:[<{]ID ?[>}]", "header", line["request"])
    assert ours == theirs


def test_however_many_are_slow_few_lines_are_written(pair: tuple[Members, Members]) -> None:
    ours = pair[1]
    before = len(lines(ours, APPLY, ""))
    for _ in range(200):
        post(ours, "/v3/kv/range", ALL)
    slow = [line for line in ours.members[0].fetch("/metrics").splitlines() if "slow_apply_total " in line]
    counted = float(slow[-1].split()[1])
    written = len(lines(ours, APPLY, "")) - before
    assert counted > 100 > written, (counted, written)

    def left_out() -> bool:
        post(ours, "/v3/kv/range", ALL)
        return any(line.get("left-out", 0) > 10 for line in lines(ours, APPLY, ""))

    until("a line that tells what was left out", left_out, BETWEEN_LINES_S)


def test_no_line_holds_a_value(pair: tuple[Members, Members]) -> None:
    said = pair[1].members[0].log.read_text()
    assert APPLY in said and SECRET not in said and text(SECRET) not in said
