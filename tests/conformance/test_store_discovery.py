"""Members and clients that find each other by a domain's SRV records, at the newest etcd and at ours."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks import peers
from tests.certificates import Authority
from tests.conformance.members import ROOT, etcdctl_path, until
from tests.conformance.names import Names

pytestmark = pytest.mark.skipif(etcdctl_path() is None, reason="etcdctl is not here: run make setup")
HOSTS = {f"m{number}.example A": [f"127.0.0.{number + 1}"] for number in range(3)}
SERVERS = [f"0 0 2380 m{number}.example." for number in range(3)]
CLIENTS = [f"0 0 2379 m{number}.example." for number in range(3)]
RECORDS = {
    **HOSTS,
    "_etcd-server._tcp.example SRV": SERVERS,
    "_etcd-server-east._tcp.example SRV": SERVERS,
    "_etcd-client._tcp.example SRV": CLIENTS,
    "_etcd-client-east._tcp.example SRV": CLIENTS,
    "_etcd-server-ssl._tcp.secure.example SRV": SERVERS[:1],
    "_etcd-server-ssl._tcp.tls.example SRV": SERVERS,
    # One of two hosts has no address.
    "_etcd-server._tcp.half.example SRV": ["0 0 2380 gone.example.", "0 0 2380 m0.example."],
    "_etcd-server._tcp.lost.example SRV": ["0 0 2380 gone.example."],
    "_etcd-client-ssl._tcp.both.example SRV": ["0 0 1 m0.example."],
    "_etcd-client._tcp.both.example SRV": CLIENTS,
}
IGNORED = re.compile("ignoring discovered insecure endpoint .*")
CLIENT_OURS = (sys.executable, "-m", "cli.kvctl.app")


@pytest.fixture
def names(tmp_path: Path) -> Iterator[Names]:
    names = Names(tmp_path / "names", RECORDS)
    yield names
    names.close()


@pytest.fixture(params=["newest", "ours"])
def peer(request: pytest.FixtureRequest) -> peers.Peer:
    """The newest etcd and ours: 3.4 takes no members without TLS from records."""
    peer = peers.ours() if request.param == "ours" else peers.newest()[0]
    return peer or pytest.skip("there is no Go to build the newest etcd with")


def words(peer: peers.Peer, directory: Path, number: int, *more: str) -> list[str]:
    """The command line of a member that advertises its name, unless told otherwise."""
    address = f"127.0.0.{number + 1}"
    return [
        *(*peer.command, "--name", f"m{number}", "--data-dir", str(directory / f"m{number}")),
        *("--listen-client-urls", f"http://{address}:2379", "--advertise-client-urls", f"http://{address}:2379"),
        *("--listen-peer-urls", f"http://{address}:2380"),
        *(f"--initial-advertise-peer-urls=http://m{number}.example:2380", "--discovery-srv=example", *more),
    ]


def begun(stack: ExitStack, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """A process that ends with the stack."""
    with log.open("ab") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


def ran(names: Names, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*names.enter, *command], cwd=ROOT, capture_output=True, text=True, timeout=60)


def etcdctl(names: Names, *line: str) -> subprocess.CompletedProcess[str]:
    return ran(names, ["env", "ETCDCTL_API=3", etcdctl_path() or "", *line])


def listed(names: Names) -> dict[str, list[str]]:
    """Names and peer URLs of the members, once all three have told their names and one leads."""
    line = ("--discovery-srv=example", "--endpoints=", "-w", "json", "member", "list")

    def told() -> dict[str, list[str]]:
        done = etcdctl(names, *line)
        members: list[dict[str, Any]] = json.loads(done.stdout)["members"] if done.returncode == 0 else []
        found = {one["name"]: one["peerURLs"] for one in members if one.get("clientURLs")}
        return found if len(found) == 3 else {}

    found: dict[str, list[str]] = until("three members", told, 30.0)
    return found


def test_certificates_of_members_are_for_the_domain(names: Names, peer: peers.Peer, tmp_path: Path) -> None:
    """Where the system's authorities, and none of their own, vouch for them."""
    authority = Authority(tmp_path / "authority")
    pair = authority.issue("members", ["tls.example"])
    files = ["--peer-cert-file", str(pair.cert), "--peer-key-file", str(pair.key)]
    with ExitStack() as stack:
        for number in range(3):
            secure = [f"--listen-peer-urls=https://127.0.0.{number + 1}:2380", "--discovery-srv=tls.example", *files]
            secure.append(f"--initial-advertise-peer-urls=https://m{number}.example:2380")
            begin = [*names.enter, "env", f"SSL_CERT_FILE={authority.cert}"]
            begun(stack, [*begin, *words(peer, tmp_path, number, *secure)], tmp_path / f"m{number}.log")
        assert listed(names) == {f"m{number}": [f"https://m{number}.example:2380"] for number in range(3)}


@pytest.mark.parametrize("how", ["names", "addresses", "service"])
def test_three_members_found_a_cluster(names: Names, peer: peers.Peer, tmp_path: Path, how: str) -> None:
    with ExitStack() as stack:

        def start(number: int) -> subprocess.Popen[bytes]:
            more = {
                "names": [],
                "addresses": [f"--initial-advertise-peer-urls=http://127.0.0.{number + 1}:2380"],
                "service": ["--discovery-srv-name=east"],
            }[how]
            command = [*names.enter, *words(peer, tmp_path, number, *more)]
            return begun(stack, command, tmp_path / f"m{number}.log")

        processes = [start(number) for number in range(3)]
        assert listed(names) == {f"m{number}": [f"http://m{number}.example:2380"] for number in range(3)}
        assert etcdctl(names, "--discovery-srv=example", "put", "k", "v").stdout == "OK\n"
        processes[0].terminate()
        processes[0].wait(20)
        start(0)
        line = ("--endpoints=127.0.0.1:2379", "get", "k")
        until("answer of the member that came back", lambda: etcdctl(names, *line).stdout == "k\nv\n")


LOOKUP = r"lookup _etcd-server-ssl\._tcp\.none\.example on 127\.0\.0\.1:53: no such host"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--discovery-srv=none.example"], rf"error querying DNS SRV records for _etcd-server-ssl {LOOKUP}"),
        (["--name=other", "--initial-advertise-peer-urls=http://127.0.0.9:2380"], "cannot find local etcd member"),
        (["--discovery-srv=lost.example"], "error querying DNS SRV records for _etcd-server lookup gone.example"),
        (
            ["--discovery-srv=secure.example"],
            "bootstrap at https://m0.example:2380 from DNS for etcd-server-ssl has scheme mismatch with expected peer "
            "http://m0.example:2380",
        ),
        (
            ["--initial-cluster=m0=http://m0.example:2380"],
            "multiple discovery or bootstrap flags are set. Choose one of",
        ),
    ],
)
def test_who_finds_nobody_or_not_itself_says_so_and_ends(
    names: Names, peer: peers.Peer, tmp_path: Path, flags: list[str], said: str
) -> None:
    done = ran(names, words(peer, tmp_path, 0, *flags))
    assert done.returncode != 0
    assert re.search(said, done.stdout + done.stderr), done.stderr


def test_hosts_without_an_address_are_left_out(names: Names, peer: peers.Peer, tmp_path: Path) -> None:
    """The only one with an address is this member, which then is a cluster of its own."""
    with subprocess.Popen([*names.enter, *words(peer, tmp_path, 0, "--discovery-srv=half.example")], cwd=ROOT) as alone:
        try:
            line = ("--endpoints=127.0.0.1:2379", "put", "k", "v")
            until("write", lambda: etcdctl(names, *line).stdout == "OK\n")
        finally:
            alone.kill()


@pytest.mark.parametrize(
    "line",
    [
        ["--discovery-srv=example", "get", "k"],
        ["--discovery-srv=example", "--discovery-srv-name=east", "get", "k"],
        ["--discovery-srv=none.example", "get", "k"],
        ["--discovery-srv=both.example", "--insecure-discovery=false", "--command-timeout=500ms", "get", "k"],
        ["--discovery-srv=example", "--insecure-discovery=false", "--endpoints=127.0.0.1:2379", "get", "k"],
    ],
)
def test_kvctl_finds_what_etcdctl_does(names: Names, tmp_path: Path, line: list[str]) -> None:
    command = words(peers.ours(), tmp_path, 0, "--discovery-srv=half.example")
    with subprocess.Popen([*names.enter, *command], cwd=ROOT) as alone:
        try:
            until("write", lambda: etcdctl(names, "--endpoints=127.0.0.1:2379", "put", "k", "v").stdout == "OK\n")
            theirs, ours = etcdctl(names, *line), ran(names, [*CLIENT_OURS, *line])
            assert (theirs.returncode, theirs.stdout) == (ours.returncode, ours.stdout)
            # Records of one weight have no order. Ours drops the dot of a whole name, and says why nobody answers.
            shown = [sorted(IGNORED.findall(done.stderr.replace("example.:", "example:"))) for done in (theirs, ours)]
            assert shown[0] == shown[1]
            if "dns lookup errors" in theirs.stderr:
                # Ours says before it what to do.
                assert ours.stderr.endswith(theirs.stderr)
        finally:
            alone.kill()
