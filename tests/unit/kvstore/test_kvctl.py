"""kvctl against a real member: etcd's outputs and exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.ports import free_port
from cli.kvctl import commandline
from cli.kvctl.app import COMMANDS, wanted
from cli.kvctl.commandline import arranged
from cli.output import table
from kvstore.client import Client
from tests.lab import PEERS
from tests.unit.kvstore.members import Cluster

ENVIRONMENT = {**os.environ, "ETCDCTL_API": "3"}
PASSING = (
    *("revision", "mod_revision", "version", "raftIndex", "raftAppliedIndex", "dbSize", "dbSizeInUse", "took", "ttl"),
    *("errors", "storageVersion", "dbSizeQuota", "downgradeInfo"),
)
"""Names in JSON whose values change from call to call, or that only etcdctl tells."""


@pytest.fixture(autouse=True, scope="module")
def serving(cluster: Cluster) -> None:
    """kvctl does not wait where nobody listens yet; a client does."""

    async def wait() -> None:
        async with Client(cluster.endpoints, timeout=60) as client:
            await client.get(b"k")

    asyncio.run(wait())


def kvctl(cluster: Cluster, *words: str, given: str = "", code: int = 0) -> str:
    argv = [sys.executable, "-m", "cli.kvctl.app", *words, f"--endpoints={cluster.endpoints[0]}"]
    done = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_global_flags_go_first() -> None:
    assert arranged(["get", "a", "-w", "json", "--prefix"]) == ["-w", "json", "get", "a", "--prefix"]
    assert arranged(["put", "--", "-w", "x"]) == ["put", "--", "-w", "x"]


def test_words_that_look_like_verbs() -> None:
    assert arranged(["put", "watch", "--", "-v"]) == ["put", "watch", "--", "-v"]
    assert arranged(["wat", "k", "--", "put", "x"]) == ["wat", "k"]
    assert commandline.command_words() == ["put", "x"]
    assert wanted(["--user", "put", "get", "k"]) == (["get"], "k")
    assert wanted(["lease", "grant", "60"]) == (["lease"], "grant")
    assert wanted(["mem", "put"]) == (list(COMMANDS), "")
    assert arranged(["get", "k", "--prefix=true", "--keys-only=False", "--rev=1"]) == [
        "get",
        "k",
        "--prefix",
        "--rev=1",
    ]
    assert arranged(["user", "add", "u", "--interactive=false"]) == ["user", "add", "u", "--no-interactive"]


def test_tables_line_up() -> None:
    assert table(["A", "LONG"], [["xyz", None], ["\u4f60", 1]]) == "A    LONG\nxyz  -\n\u4f60   1"


def test_keys(cluster: Cluster) -> None:
    assert kvctl(cluster, "put", "a", "1") == "OK\n"
    assert kvctl(cluster, "put", "ab", given="from stdin") == "OK\n"
    assert kvctl(cluster, "get", "a", "--prefix") == "a\n1\nab\nfrom stdin\n"
    assert kvctl(cluster, "get", "missing") == ""
    found = json.loads(kvctl(cluster, "get", "a", "--json"))
    assert found["kvs"][0]["key"] == "YQ==" and found["count"] == 1 and found["header"]["revision"]
    compare = 'value("a") = "1"\n\nput b "two words"\nget b\n\nget a\n\n'
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
    assert "|        ENDPOINT        |" in kvctl(cluster, "endpoint", "status", "-w", "table")


def test_json_is_that_of_etcdctl(cluster: Cluster) -> None:
    """Both are asked the same; what differs by nature (revisions that went on, times) is taken out."""
    etcdctl = str(PEERS / "etcdctl")

    def told(program: list[str], *words: str, given: str = "") -> Any:
        argv = [*program, f"--endpoints={cluster.endpoints[0]}", "-w", "json", *words]
        done = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=60, env=ENVIRONMENT)
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
        (("lease", "timetolive", "77"), ""),
        (("lease", "keep-alive", "--once", held), ""),
    ):
        assert told(ours, *words, given=given) == told([etcdctl], *words, given=given), words
    head = {"cluster_id", "member_id", "revision", "raft_term"}
    assert json.loads(kvctl(cluster, "lease", "list", "--json")).keys() == head | {"leases"}
    granted = [told(who, "lease", "grant", "600") | {"ID": 0} for who in (ours, [etcdctl])]
    assert granted[0] == granted[1] and granted[0].keys() >= head - {"revision"}
    ended = [kvctl(cluster, "lease", "grant", "600").split()[1] for _ in range(2)]
    revoked = [told(who, "lease", "revoke", one) for who, one in zip((ours, [etcdctl]), ended, strict=True)]
    assert revoked[0] == revoked[1] and revoked[0]["header"]
    learner = f"--peer-urls=http://127.0.0.1:{free_port()}"
    added = json.loads(kvctl(cluster, "member", "add", "x", "--learner", learner, "--json"))
    assert added["member"]["isLearner"] and added["member"] in added["members"] and added["header"]["cluster_id"]
    assert told(ours, "member", "list") == told([etcdctl], "member", "list")
    left = json.loads(kvctl(cluster, "member", "remove", f"{added['member']['ID']:x}", "--json"))
    assert [one["name"] for one in left["members"]] == ["m0"] and "member" not in left


def test_protobuf_is_that_of_etcdctl(cluster: Cluster) -> None:
    def told(program: list[str], *words: str, given: str = "") -> bytes:
        argv = [*program, f"--endpoints={cluster.endpoints[0]}", "-w", "protobuf", *words]
        done = subprocess.run(argv, input=given.encode(), capture_output=True, timeout=60, env=ENVIRONMENT)
        assert done.returncode == 0 and done.stdout, done.stderr
        return done.stdout

    ours = [sys.executable, "-m", "cli.kvctl.app"]
    kvctl(cluster, "put", "p/1", "\u00e9")
    kvctl(cluster, "put", "p/2", "")
    read = 'value("p/1") = "x"\n\n\nget p/ --prefix\nget none\n\n'
    for words, given in (
        (("get", "p/", "--prefix"), ""),
        (("del", "none"), ""),
        (("txn",), read),
        (("member", "list"), ""),
    ):
        assert told(ours, *words, given=given) == told([str(PEERS / "etcdctl")], *words, given=given), words


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        (
            "--max-recv-bytes=nope",
            '"nope" for "--max-recv-bytes" flag: strconv.ParseInt: parsing "nope": invalid syntax',
        ),
        ("--max-request-bytes=1.5", '"1.5" for "--max-request-bytes" flag: strconv.ParseInt: parsing "1.5": invalid'),
    ],
)
def test_a_limit_is_a_whole_number(flag: str, said: str) -> None:
    argv = [sys.executable, "-m", "cli.kvctl.app", flag, "get", "a"]
    done = subprocess.run(argv, capture_output=True, timeout=60, text=True)
    assert done.returncode == 1 and f"Error: invalid argument {said}" in done.stderr


def test_mistakes(cluster: Cluster) -> None:
    assert "malformed comparison" in kvctl(cluster, "txn", given="nonsense\n\n\n\n", code=3)
    assert "EOF" in kvctl(cluster, "txn", given="\nput cut off\n", code=3)
    assert "only accept one argument" in kvctl(cluster, "get", "a", "b", "--prefix", code=128)
    gone = f"--endpoints=127.0.0.1:{free_port()}"
    argv = [sys.executable, "-m", "cli.kvctl.app", gone, "--command-timeout=300ms", "get", "a"]
    assert subprocess.run(argv, capture_output=True, timeout=60).returncode == 1
    argv[4] = "--command-timeout=60s"
    refused = subprocess.run(argv, capture_output=True, timeout=60, text=True)
    assert refused.returncode == 1 and "Connection refused" in refused.stderr
    nobody = "Nobody listens there: start 'fleetd' or 'kvstore', or name who does with --endpoints."
    assert nobody in refused.stderr


def test_mistakes_with_snapshots_say_what_to_do(tmp_path: Path) -> None:
    nowhere = f"--endpoints=127.0.0.1:{free_port()}"
    for words, advice in (
        (["status", f"{tmp_path}/none"], "Give a path that is there; of a new file, one in a directory that is."),
        (["save", f"{tmp_path}/new.db"], "Nobody listens there: "),
    ):
        argv = [sys.executable, "-m", "cli.kvctl.app", nowhere, "snapshot", *words]
        done = subprocess.run(argv, capture_output=True, timeout=60, text=True)
        said, error = done.stderr.splitlines()
        assert done.returncode == 1 and said.startswith(advice) and error.startswith("Error: "), done.stderr
