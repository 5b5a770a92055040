"""Etcdctl's flags that are about certificates, times and figures, at our store and at Debian's etcd."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.conformance.members import Members, etcdctl_path, until
from tests.conformance.secured import SecureMembers, clients_flags, context, shown

pytestmark = pytest.mark.skipif(etcdctl_path() is None, reason="etcdctl is not here: run make setup")
DIALING = (
    "--dial-timeout=1s",
    "--command-timeout=3s",
    "--keepalive-time=1s",
    "--keepalive-timeout=2s",
    "--debug=false",
)


@pytest.fixture
def plain(command: tuple[str, ...], tmp_path: Path) -> Iterator[Members]:
    members = Members(tmp_path / "plain", 1, command=command)
    try:
        members.start()
        yield members
    finally:
        members.close()


def test_check_datascale_measures_and_leaves_nothing(plain: Members) -> None:
    plain.ctl("put", "kept", "1")
    told = plain.ctl("check", "datascale", "--load=s", "--prefix=/x/", "--auto-compact", "--auto-defrag")
    assert "Compacted with revision 10003" in told
    assert "Defragmented" in told
    assert "PASS: Approximate system memory used" in told
    assert plain.ctl("get", "", "--prefix", "--keys-only").split() == ["kept"]


def test_how_it_dials_and_waits(plain: Members) -> None:
    assert plain.ctl(*DIALING, "put", "k", "v") == "OK\n"
    # Longer than the keepalive's time: the store bears its pings.
    watch = subprocess.Popen(
        plain.ctl_command(*DIALING, "watch", "k"), stdout=subprocess.PIPE, text=True, env={"ETCDCTL_API": "3"}
    )
    try:
        time.sleep(2.5)
        plain.ctl("put", "k", "w")
        assert watch.stdout is not None
        assert [watch.stdout.readline() for _ in range(3)] == ["PUT\n", "k\n", "w\n"]
    finally:
        watch.kill()
        watch.wait()
        assert watch.stdout is not None
        watch.stdout.close()


def test_a_mirror_on_a_server_with_tls(
    plain: Members, command: tuple[str, ...], authority: Authority, tmp_path: Path
) -> None:
    mine, user = authority.issue("server"), authority.issue("user")
    secure = SecureMembers(
        tmp_path / "secure",
        flags=lambda _: clients_flags(mine, authority),
        command=command,
        trust=context(authority.cert, user),
        show=shown(user),
    )
    try:
        secure.start()
        assert secure.ctl_raw("put", "k", "v").returncode != 0
        assert secure.ctl("--insecure-skip-tls-verify", "put", "own", "1") == "OK\n"
        secure.show = shown(user, authority)
        assert secure.ctl("--insecure-transport=false", "get", "own") == "own\n1\n"
        plain.ctl("put", "m/1", "x")
        there = (f"--dest-cacert={authority.cert}", f"--dest-cert={user.cert}", f"--dest-key={user.key}")
        words = ("make-mirror", *there, "--dest-insecure-transport=false", secure.members[0].client_url)
        mirror = subprocess.Popen(plain.ctl_command(*words), stdout=subprocess.DEVNULL, env={"ETCDCTL_API": "3"})
        try:
            until("a copied key", lambda: secure.ctl("get", "m/1") == "m/1\nx\n")
            plain.ctl("put", "m/2", "y")
            until("a key that came later", lambda: secure.ctl("get", "m/2") == "m/2\ny\n")
        finally:
            mirror.kill()
            mirror.wait()
    finally:
        secure.close()
