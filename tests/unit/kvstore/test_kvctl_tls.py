"""kvctl with certificates: its flags and variables do what etcdctl's do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.ports import free_port
from cli.kvctl import security
from tests.certificates import Authority
from tests.conformance.members import ROOT, etcdctl_path
from tests.conformance.secured import SecureMembers, clients_flags, context
from tests.unit.kvstore.test_discovery import asking, serving

KVCTL = (sys.executable, "-m", "cli.kvctl.app")
Run = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("kvctl") / "ca")


@pytest.fixture(scope="module")
def member(authority: Authority) -> Iterator[SecureMembers]:
    """One that wants certificates, and another socket that does not."""
    alice = authority.issue("alice", [])
    flags = clients_flags(authority.issue("server"), authority)
    members = SecureMembers(authority.directory, 1, lambda _: flags, trust=context(authority.cert, alice))
    one = members.secure[0]
    one.start(members.initial, "new", "--listen-client-urls", f"{one.client_url},unix://{authority.directory}/kv.sock")
    try:
        members.wait()
        yield members
    finally:
        members.close()


def run(program: tuple[str, ...], *words: str, **variables: str) -> Run:
    environment = {**os.environ, "ETCDCTL_API": "3", **variables}
    return subprocess.run(
        [*program, *words],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
    )


def test_verbs_reach_a_member_that_asks_for_certificates(
    authority: Authority, member: SecureMembers, tmp_path: Path
) -> None:
    files = {name: str(authority.directory / file) for name, file in (("cacert", "ca.pem"), ("cert", "alice.pem"))}
    files["key"] = str(authority.directory / "alice.key")
    shown = [word for name, path in files.items() for word in (f"--{name}", path)]
    place = f"127.0.0.1:{member.secure[0].client_port}"
    for endpoint in (place, f"https://{place}"):
        # Global flags may stand anywhere.
        assert run(KVCTL, "put", "k", "v", *shown, "--endpoints", endpoint).stdout == "OK\n"
        variables = {f"ETCDCTL_{name.upper()}": path for name, path in files.items()}
        assert run(KVCTL, "get", "k", ETCDCTL_ENDPOINTS=endpoint, **variables).stdout == "k\nv\n"
    told = run(KVCTL, *shown, "--endpoints", f"https://{place}", "top", "--once", "--json")
    assert json.loads(told.stdout), told
    saved = run(KVCTL, *shown, "--endpoints", place, "snapshot", "save", str(tmp_path / "s.db"))
    assert saved.returncode == 0 and (tmp_path / "s.db").exists(), saved
    load = run(KVCTL, *shown, "--endpoints", place, "bench", "put", "--total", "10")
    assert "put: 10 in" in load.stdout, load
    socket = f"unix://{authority.directory}/kv.sock"
    assert run(KVCTL, "--endpoints", socket, "get", "k").stdout == "k\nv\n"


def test_without_the_right_certificates_it_says_what_is_missing(authority: Authority, member: SecureMembers) -> None:
    other = Authority(authority.directory.parent / "other")
    url = f"--endpoints=https://127.0.0.1:{member.secure[0].client_port}"
    for words, sentence in (
        (["--cacert", str(authority.cert)], "it asks for a client certificate (--cert, --key)"),
        (["--cacert", str(other.cert)], "its certificate is signed by an authority that is not trusted here"),
        ([], "its certificate is signed by an authority that is not trusted here"),
        (["--insecure-skip-tls-verify"], "it asks for a client certificate (--cert, --key)"),
    ):
        done = run(KVCTL, url, *words, "get", "k")
        assert done.returncode == 1 and sentence in done.stderr, done


@pytest.mark.skipif(etcdctl_path() is None, reason="etcdctl is not here: run make setup")
def test_mistakes_are_told_as_by_etcdctl(authority: Authority) -> None:
    cert = str(authority.issue("bob").cert)
    for words in (
        ["--cert", ""],
        ["--cacert="],
        ["--cacert", "/none/ca.pem"],
        ["--cert", cert, "--key", "/none/key.pem"],
    ):
        ours, theirs = (run(program, *words, "get", "k") for program in (KVCTL, (str(etcdctl_path()),)))
        assert ours.returncode == theirs.returncode, (words, ours, theirs)
        assert ours.stderr.splitlines()[-1] == theirs.stderr.splitlines()[-1], words
        if words[-1].startswith("/none/"):
            assert f"{words[-2]} names a file that can't be read here." in ours.stderr


def test_tls_is_spoken_where_a_flag_asks_for_it() -> None:
    def tls(*endpoints: str, cacert: str | None = None, plain: bool = True, skip: bool = False) -> bool:
        files = {"cacert": cacert, "cert": None, "key": None}
        found = security.identity(endpoints, files, skip_verify=skip, insecure_transport=plain, server_name="")
        return found is not None

    assert not tls("h:1")
    assert not tls("http://h:1", skip=True), "as in etcd"
    assert tls("h:1", cacert="ca.pem")
    assert tls("h:1", plain=False)
    assert tls("https://h:1")
    assert tls("unixs:///x")


def test_endpoints_come_from_a_domains_records(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(free_port()) as server:
        asking(monkeypatch, server)
        secure = ["https://m1.example:2379", "https://late.example:2379"]
        assert security.discovered("example", "", insecure=True) == [*secure, "http://open.example:2379"]
        assert security.discovered("example", "", insecure=False) == secure
        assert capsys.readouterr().err == 'ignoring discovered insecure endpoint "http://open.example:2379"\n'
        with pytest.raises(SystemExit):
            security.discovered("none", "", insecure=True)
        assert "dns lookup errors" in capsys.readouterr().err
