"""kvctl against a real member: etcd's outputs and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.kvctl.app import arranged
from cli.output import table
from tests.unit.kvstore.members import Cluster, free_port


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(Path(tmp_path_factory.mktemp("members")))
    yield made
    made.close()


def kvctl(cluster: Cluster, *words: str, given: str = "", code: int = 0) -> str:
    argv = [sys.executable, "-m", "cli.kvctl.app", *words, f"--endpoints={cluster.endpoints[0]}"]
    done = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=20)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_global_flags_go_first() -> None:
    assert arranged(["get", "a", "-w", "json", "--prefix"]) == ["-w", "json", "get", "a", "--prefix"]
    assert arranged(["put", "--", "-w", "x"]) == ["put", "--", "-w", "x"]


def test_tables_line_up() -> None:
    assert table(["A", "LONG"], [["xyz", None], ["\u4f60", 1]]) == "A    LONG\nxyz  -\n\u4f60   1"


def test_keys(cluster: Cluster) -> None:
    assert kvctl(cluster, "put", "a", "1") == "OK\n"
    assert kvctl(cluster, "put", "ab", given="from stdin") == "OK\n"
    assert kvctl(cluster, "get", "a", "--prefix") == "a\n1\nab\nfrom stdin\n"
    assert kvctl(cluster, "get", "missing") == ""
    found = json.loads(kvctl(cluster, "get", "a", "--json"))
    assert found["kvs"][0]["key"] == "YQ==" and found["count"] == 1 and found["header"]["revision"]
    compare = 'value("a") = "1"\n\nput b "two words"\nget b\n\nget a\n'
    assert kvctl(cluster, "txn", given=compare) == "SUCCESS\n\nOK\n\nb\ntwo words\n"
    assert kvctl(cluster, "del", "a", "--prefix", "--prev-kv") == "2\na\n1\nab\nfrom stdin\n"


def test_leases_and_members(cluster: Cluster) -> None:
    granted = kvctl(cluster, "lease", "grant", "60")
    lease = granted.split()[1]
    assert granted == f"lease {lease} granted with TTL(60s)\n"
    kvctl(cluster, "put", "leased", "", "--lease", lease)
    assert "attached keys([leased])" in kvctl(cluster, "lease", "timetolive", lease, "--keys")
    assert kvctl(cluster, "lease", "keep-alive", "--once", lease).endswith("TTL(60)\n")
    assert kvctl(cluster, "lease", "revoke", lease) == f"lease {lease} revoked\n"
    assert "lease not found" in kvctl(cluster, "lease", "revoke", lease, code=1)
    assert ", started, m0, " in kvctl(cluster, "member", "list")
    assert "is healthy" in kvctl(cluster, "endpoint", "health")
    assert kvctl(cluster, "endpoint", "status").startswith("ENDPOINT")


def test_mistakes(cluster: Cluster) -> None:
    assert "not a comparison" in kvctl(cluster, "txn", given="nonsense\n\n\n\n", code=128)
    assert "only one of" in kvctl(cluster, "get", "a", "b", "--prefix", code=128)
    gone = f"--endpoints=127.0.0.1:{free_port()}"
    argv = [sys.executable, "-m", "cli.kvctl.app", gone, "--command-timeout=300ms", "get", "a"]
    assert subprocess.run(argv, capture_output=True, timeout=10).returncode == 1
