"""kvctl's verbs that look at figures, top and check, on real members."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import pytest

from cli.kvctl import check, metrics, top
from cli.kvctl.session import flags
from kvstore.client import Client
from tests.unit.kvstore.members import Cluster

PATIENCE_S = 60.0
PAGE = """# HELP x y
# TYPE grpc_server_handled_total counter
grpc_server_handled_total{grpc_code="OK",grpc_method="Put"} 7
grpc_server_handled_total{grpc_code="OK",grpc_method="Range"} 3
process_resident_memory_bytes 2.5e+07
nonsense
broken NaNsense
"""
STATUS = {
    **{
        "header": {"member_id": 5},
        "leader": 5,
        "isLearner": False,
        "raftTerm": 2,
        "raftIndex": 90,
        "errors": ["NOSPACE"],
    },
    **{"raftAppliedIndex": 80, "dbSize": 20480, "dbSizeInUse": 16384, "errors": ["NOSPACE"]},
}


@pytest.fixture(autouse=True, scope="module")
def serving(cluster: Cluster) -> None:
    """kvctl does not wait where nobody listens yet; a client does."""

    async def wait() -> None:
        async with Client(cluster.endpoints, timeout=60) as client:
            await client.get(b"k")

    asyncio.run(wait())


def kvctl(cluster: Cluster, *words: str, code: int = 0) -> str:
    argv = [sys.executable, "-m", "cli.kvctl.app", *words, f"--endpoints={cluster.endpoints[0]}"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_figures_are_summed_over_their_labels() -> None:
    assert metrics.figures(PAGE) == {metrics.REQUESTS: 10.0, metrics.RESIDENT: 2.5e7}


def test_a_member_in_plain_values() -> None:
    before = top.Look("a:1", 10.0, STATUS, {metrics.REQUESTS: 10.0})
    now = replace(before, at=12.0, figures={metrics.REQUESTS: 50.0, metrics.RESIDENT: 2.5e7})
    told = top.told_of(now, before, leading=95)
    assert told["role"] == "leader" and told["id"] == "5" and told["behind"] == 15 and told["errors"] == ["NOSPACE"]
    assert told["requests_per_s"] == 20.0 and told["memory"] == 25_000_000 and told["watchers"] is None


def test_what_is_not_known_is_not_told() -> None:
    look = top.Look("a:1", 10.0, STATUS, {metrics.REQUESTS: 10.0})
    assert top.told_of(look, None, 0)["requests_per_s"] is None
    again = replace(look, at=11.0, figures={metrics.REQUESTS: 1.0})
    assert top.rate(look, again) is None, "a member that began anew has no rate yet"
    assert top.told_of(top.Look("a:1", 1.0, error="gone"), None, 0) == {"endpoint": "a:1", "error": "gone"}


def test_top_shows_the_members(cluster: Cluster) -> None:
    kvctl(cluster, "put", "k", "v")
    load = ["bench", "put", "--duration", "300", f"--endpoints={cluster.endpoints[0]}"]
    end = time.monotonic() + PATIENCE_S
    with subprocess.Popen([sys.executable, "-m", "cli.kvctl.app", *load]) as working:
        try:
            member: dict[str, Any] = {}
            while (member.get("requests_per_s") or 0) <= 10:  # a busy machine may let the load begin later
                assert time.monotonic() < end and working.poll() is None, member
                (member,) = json.loads(kvctl(cluster, "top", "--once", "--json"))
        finally:
            working.kill()
    assert member["role"] == "leader" and member["db_size"] > 0 and member["index"] > 10
    heading, row = kvctl(cluster, "top", "--once").splitlines()
    assert heading.split()[:3] == ["ENDPOINT", "ID", "ROLE"] and " leader " in row


def test_members_are_not_asked_too_often(cluster: Cluster) -> None:
    assert "1s at least" in kvctl(cluster, "top", "--interval", "500ms", code=1)


@pytest.fixture
def here(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The cluster as kvctl's own, for verbs that are called in this process."""
    kvctl(cluster, "put", "k", "v")
    monkeypatch.setattr(flags, "endpoints", cluster.endpoints)
    monkeypatch.setattr(check, "SECONDS", 2)
    monkeypatch.setattr(check, "DATASCALE", {"s": check.Work(500, 10)})
    return cluster


def told(capsys: Any, verb: Any, **options: Any) -> tuple[int, list[str]]:
    """Exit code and output of a verb."""
    code = 0
    try:
        verb(**options)
    except SystemExit as error:
        code = int(error.code or 0)
    return code, capsys.readouterr().out.splitlines()


def test_check_perf_judges(here: Cluster, capsys: Any) -> None:
    code, lines = told(capsys, check.perf, auto_compact=True)
    assert lines[0].startswith("Compacting with revision") and lines[1].startswith("Compacted with revision")
    assert ("Throughput" in lines[2]) and ("lowest" in lines[3] or "Slowest" in lines[3]) and "tddev" in lines[4]
    assert (code, lines[5]) in ((0, "PASS"), (1, "FAIL"))
    assert code or "Throughput is 1" in lines[2], "150 a second were asked for"
    assert kvctl(here, "get", "/etcdctl-check-perf/", "--prefix", "--count-only") == "0\n"


def test_check_datascale_measures(here: Cluster, capsys: Any) -> None:
    code, lines = told(capsys, check.datascale)
    if metrics.RESIDENT not in metrics.figures(metrics.fetch(here.endpoints[0])):
        assert code == 1 and lines == [f"FAIL: Could not read {metrics.RESIDENT} before the put operations."]
        return
    assert code == 0 and "[500 key-value pairs, 1024 bytes per key-value, 10 concurrent clients]" in lines[0]
    assert lines[-1].startswith("PASS: Approximate system memory used : ")


def test_checks_leave_other_keys_alone(here: Cluster, capsys: Any) -> None:
    kvctl(here, "put", "/mine/k", "v")
    assert told(capsys, check.perf, prefix="/mine/")[0] == 3
    assert told(capsys, check.perf, load="huge")[0] == 4
    assert kvctl(here, "del", "/mine/k") == "1\n"
