"""TLS between members, of ours and of Debian's etcd: who is let in, and who is not."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.certificates import Authority, Pair
from tests.conformance.members import etcdctl_path, until
from tests.conformance.secured import SecureMembers, context

pytestmark = pytest.mark.skipif(etcdctl_path() is None, reason="etcdctl is not here: run make setup")
Start = Callable[..., SecureMembers]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts three members with TLS among them."""
    with ExitStack() as ends:

        def run(flags: Callable[[str], list[str]], wait: bool = True, **rest: object) -> SecureMembers:
            members = SecureMembers(tmp_path, 3, flags, clients="http", peers="https", **rest)  # type: ignore[arg-type]
            ends.callback(members.close)
            for member in members.members:
                member.start(members.initial)
            if wait:
                members.wait()
            return members

        yield run


def flags_of(pair: Pair, authority: Authority) -> list[str]:
    words = ["--peer-cert-file", str(pair.cert), "--peer-key-file", str(pair.key), "--peer-client-cert-auth"]
    return [*words, "--peer-trusted-ca-file", str(authority.cert)]


def revisions(members: SecureMembers) -> set[str]:
    """What each member says of a key by itself."""
    return {members.ctl("get", "k", "--consistency=s", at=[one]) for one in members.members}


def test_members_with_certificates_form_a_cluster_and_nobody_else_is_let_in(
    command: tuple[str, ...], authority: Authority, start: Start
) -> None:
    members = start(lambda name: flags_of(authority.issue(name), authority), command=command)
    members.ctl("put", "k", "v")
    until("the write at all members", lambda: revisions(members) == {"k\nv\n"})
    place = ("127.0.0.1", members.members[0].peer_port)
    with socket.create_connection(place, 30) as plain:
        plain.sendall(b"GET /version HTTP/1.1\r\nHost: m\r\n\r\n")
        answer = plain.recv(200)
        assert b"etcdserver" not in answer
    stranger = Authority(authority.directory.parent / "other").issue("stranger")
    for trust in (context(authority.cert), context(authority.cert, stranger)):
        with (
            pytest.raises(OSError),
            socket.create_connection(place, 30) as plain,
            trust.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            secure.sendall(b"GET /version HTTP/1.1\r\nHost: m\r\n\r\n")
            assert secure.recv(200), "closed"
            raise AssertionError("it was let in")
    trust = context(authority.cert, authority.issue("friend"))
    with (
        socket.create_connection(place, 30) as plain,
        trust.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        secure.sendall(b"GET /version HTTP/1.1\r\nHost: m\r\n\r\n")
        assert b"etcdserver" in secure.recv(400)


def test_members_make_their_own_certificates(command: tuple[str, ...], start: Start) -> None:
    members = start(lambda _: ["--peer-auto-tls"], command=command)
    members.ctl("put", "k", "v")
    until("the write at all members", lambda: revisions(members) == {"k\nv\n"})
    place = ("127.0.0.1", members.members[0].peer_port)
    with (
        socket.create_connection(place, 30) as plain,
        context(None).wrap_socket(plain) as secure,
    ):
        assert secure.version() == "TLSv1.3"
        assert secure.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(
            (members.directory / "m0/fixtures/peer/cert.pem").read_text()
        )


def test_a_member_of_another_authority_stays_outside(
    command: tuple[str, ...], authority: Authority, start: Start
) -> None:
    other = Authority(authority.directory.parent / "other")
    signed = {"m0": authority, "m1": authority, "m2": other}
    members = start(lambda name: flags_of(signed[name].issue(name), signed[name]), wait=False, command=command)
    two, outside = members.members[:2], members.members[2]
    until("a leader of the two", lambda: all(one.healthy() for one in two))
    members.ctl("put", "k", "v", at=two)
    assert not outside.healthy()


def test_names_and_addresses_that_a_members_certificate_must_have(
    command: tuple[str, ...], authority: Authority, start: Start
) -> None:
    names = {"m0": "member", "m1": "member", "m2": "somebody"}

    def flags(name: str) -> list[str]:
        return [*flags_of(authority.issue(name, cn=names[name]), authority), "--peer-cert-allowed-cn=member"]

    members = start(flags, wait=False, command=command)
    two, outside = members.members[:2], members.members[2]
    until("a leader of the two", lambda: all(one.healthy() for one in two))
    assert not outside.healthy()


def test_a_member_from_elsewhere_than_its_certificate_says_stays_outside(authority: Authority, start: Start) -> None:
    hosts = {"m0": ["127.0.0.1"], "m1": ["127.0.0.1"], "m2": ["10.9.9.9"]}
    shown = {name: authority.issue(name) for name in hosts}
    dialing = {name: authority.issue(f"{name}-client", hosts[name]) for name in hosts}

    def flags(name: str) -> list[str]:
        client = ["--peer-client-cert-file", str(dialing[name].cert), "--peer-client-key-file", str(dialing[name].key)]
        return [*flags_of(shown[name], authority), *client]

    members = start(flags, wait=False)
    until("a leader of the two", lambda: all(one.healthy() for one in members.members[:2]))
    told = "rejected connection on peer endpoint: x509: certificate is valid for 10.9.9.9, not 127.0.0.1"
    members.said(told, remote_addr="127.0.0.1")


def test_certificates_of_members_are_renewed_and_revoked_while_they_run(authority: Authority, start: Start) -> None:
    listed = authority.revocations()
    members = start(
        lambda name: [*flags_of(authority.issue(name), authority), "--peer-crl-file", str(listed)],
    )
    members.ctl("put", "k", "1")
    for name in ("m0", "m1", "m2"):
        authority.issue(name)
    gone = next(one for one in members.members if one is not members.leader())
    rest = [one for one in members.members if one is not gone]
    gone.stop(9)
    gone.start(members.initial)
    until("its return with the new certificate", lambda: members.ctl("get", "k", at=[gone], check=False) == "k\n1\n")
    gone.stop(9)
    lost = Pair(authority.directory / f"{gone.name}.pem", authority.directory / f"{gone.name}.key")
    authority.revocations(lost)
    gone.start(members.initial)
    index = members.members.index(rest[0])
    members.said("rejected connection on peer endpoint: invalid peer certificate: Revoked", index)
    members.ctl("put", "k", "2", at=rest)
    assert not gone.healthy()


def test_members_move_to_tls_one_after_the_other(
    command: tuple[str, ...], authority: Authority, tmp_path: Path
) -> None:
    members = SecureMembers(
        tmp_path, 3, lambda name: flags_of(authority.issue(name), authority), command=command, clients="http"
    )
    try:
        members.start()
        listed = json.loads(members.ctl("member", "list", "-w", "json"))["members"]
        known = {one["name"]: f"{one['ID']:x}" for one in listed}
        for number, member in enumerate(members.secure):
            members.ctl("put", "k", str(number))
            member.peers = "https"
            members.ctl("member", "update", known[member.name], f"--peer-urls={member.peer_url}")
            member.stop()
            member.start(members.initial)
            members.wait()
            written = f"k\n{number}\n"
            until("the write at all members", lambda text=written: revisions(members) == {text})
        listed = json.loads(members.ctl("member", "list", "-w", "json"))["members"]
        assert sorted(url for one in listed for url in one["peerURLs"]) == sorted(
            one.peer_url for one in members.members
        )
    finally:
        members.close()
