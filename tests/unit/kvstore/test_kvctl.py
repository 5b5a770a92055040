"""kvctl against a real member: etcd's outputs and exit codes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.kvctl.app import arranged
from cli.output import table
from tests.unit.kvstore.members import Cluster, free_port

ENVIRONMENT = {**os.environ, "ETCDCTL_API": "3"}
PASSING = (
    *("revision", "mod_revision", "version", "raftIndex", "raftAppliedIndex", "dbSize", "dbSizeInUse", "took", "ttl"),
    *("cluster_id", "member_id", "raft_term", "errors"),
)
"""Names in JSON whose values change from call to call, or that only etcdctl tells."""


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


@pytest.mark.skipif(shutil.which("etcdctl") is None, reason="etcdctl is not here: apt-get download etcd-client")
def test_json_is_that_of_etcdctl(cluster: Cluster) -> None:
    """Both are asked the same; what differs by nature (revisions that went on, times) is taken out."""
    etcdctl = str(shutil.which("etcdctl"))

    def told(program: list[str], *words: str, given: str = "") -> Any:
        argv = [*program, f"--endpoints={cluster.endpoints[0]}", "-w", "json", *words]
        done = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=20, env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr
        return steady(json.loads(done.stdout))

    def steady(value: Any) -> Any:
        if isinstance(value, list):
            return [steady(one) for one in value]
        if isinstance(value, dict):
            # Debian's etcdctl does not know of the errors in a status, nor of what came after 3.4.
            return {name: steady(one) for name, one in value.items() if name not in PASSING}
        return value

    ours = [sys.executable, "-m", "cli.kvctl.app"]
    kvctl(cluster, "put", "j", "1")
    held = kvctl(cluster, "lease", "grant", "600").split()[1]
    kvctl(cluster, "put", "j/leased", "<\u00e9>", "--lease", held)
    txn = 'value("j") = "1"\n\nput j 1\nget j\nget none\n\ndel none\n\n'
    for words, given in (
        (("get", "j"), ""),
        (("get", "j", "--prefix", "--limit=1"), ""),
        (("get", "none"), ""),
        (("put", "j", "1"), ""),
        (("put", "j", "1", "--prev-kv"), ""),
        (("del", "none"), ""),
        (("txn",), txn),
        (("txn",), txn.replace('"1"', '"2"')),
        (("member", "list"), ""),
        (("endpoint", "status"), ""),
        (("endpoint", "health"), ""),
        (("lease", "timetolive", held), ""),
        (("lease", "timetolive", held, "--keys"), ""),
        (("lease", "list"), ""),
        (("lease", "keep-alive", "--once", held), ""),
    ):
        assert told(ours, *words, given=given) == told([etcdctl], *words, given=given), words
    learner = f"--peer-urls=http://127.0.0.1:{free_port()}"
    added = json.loads(kvctl(cluster, "member", "add", "x", "--learner", learner, "--json"))
    assert added["member"]["isLearner"] and added["member"] in added["members"] and added["header"]["cluster_id"]
    assert told(ours, "member", "list") == told([etcdctl], "member", "list")
    left = json.loads(kvctl(cluster, "member", "remove", f"{added['member']['ID']:x}", "--json"))
    assert [one["name"] for one in left["members"]] == ["m0"] and "member" not in left


def test_mistakes(cluster: Cluster) -> None:
    assert "not a comparison" in kvctl(cluster, "txn", given="nonsense\n\n\n\n", code=128)
    assert "only one of" in kvctl(cluster, "get", "a", "b", "--prefix", code=128)
    gone = f"--endpoints=127.0.0.1:{free_port()}"
    argv = [sys.executable, "-m", "cli.kvctl.app", gone, "--command-timeout=300ms", "get", "a"]
    assert subprocess.run(argv, capture_output=True, timeout=10).returncode == 1
