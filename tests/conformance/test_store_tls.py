"""TLS between clients and members, as Debian's etcdctl and Python's own TLS meet it, beside Debian's etcd."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from benchmarks.ports import free_ports
from tests.certificates import Authority, Pair, self_signed
from tests.conformance.members import OURS, etcdctl_path
from tests.conformance.secured import SecureMembers, clients_flags, context, shown

pytestmark = pytest.mark.skipif(etcdctl_path() is None, reason="etcdctl is not here: run make setup")
Start = Callable[..., SecureMembers]
HANDSHAKE_S = 10.0
"""How long one may take, as in etcd."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts one member, or several, that are ended with the test."""
    with ExitStack() as ends:

        def run(flags: list[str], wait: bool = True, **rest: object) -> SecureMembers:
            members = SecureMembers(tmp_path, 1, lambda _: flags, **rest)  # type: ignore[arg-type]
            ends.callback(members.close)
            for member in members.members:
                member.start(members.initial)
            if wait:
                members.wait()
            return members

        yield run


def is_refused(members: SecureMembers, *show: str) -> bool:
    """Whether etcdctl with these flags gets no answer, while one with the right flags does."""
    right, members.show = members.show, list(show)
    try:
        return members.ctl_raw("--command-timeout=2s", "--dial-timeout=2s", "get", "k").returncode != 0
    finally:
        members.show = right


def test_clients_are_served_over_tls(command: tuple[str, ...], authority: Authority, start: Start) -> None:
    pair = authority.issue("server")
    members = start(
        clients_flags(pair), command=command, trust=context(authority.cert), show=shown(authority=authority)
    )
    assert members.ctl("put", "k", "v") == "OK\n"
    assert members.ctl("get", "k") == "k\nv\n"
    member = members.secure[0]
    assert member.healthy()
    assert "etcdserver" in member.fetch("/version")
    assert "etcd_server_has_leader 1" in member.fetch("/metrics")
    for offered in (["h2"], ["http/1.1"], ["h2", "http/1.1"]):
        trust = context(authority.cert)
        trust.set_alpn_protocols(offered)
        with (
            socket.create_connection(("127.0.0.1", member.client_port), 20) as plain,
            trust.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            # Etcd 3.4 speaks HTTP/1.1 too, but does not say so.
            assert (command != OURS and offered == ["http/1.1"]) or secure.selected_alpn_protocol() == offered[0]
    # Without TLS nobody is answered, and who believes another authority goes away.
    members.secure[0].clients = "http"
    assert not member.fetch("/health")
    members.secure[0].clients = "https"
    other = Authority(authority.directory.parent / "other")
    assert is_refused(members, *shown(authority=other))
    assert is_refused(members)
    assert not is_refused(members, *shown(authority=authority))


def test_a_client_needs_a_certificate_of_the_trusted_authority(
    command: tuple[str, ...], authority: Authority, start: Start
) -> None:
    good, old = authority.issue("alice", []), authority.issue("old", [], ends=datetime(2020, 2, 1, tzinfo=UTC))
    stranger = Authority(authority.directory.parent / "other").issue("alice", [])
    flags = clients_flags(authority.issue("server"), authority)
    members = start(
        flags,
        command=command,
        trust=context(authority.cert, good),
        show=shown(good, authority),
    )
    members.ctl("put", "k", "v")
    assert is_refused(members, *shown(None, authority))
    assert is_refused(members, *shown(stranger, authority))
    assert is_refused(members, *shown(old, authority))
    assert not is_refused(members, *shown(good, authority))


def test_an_authority_alone_asks_for_certificates_too(
    command: tuple[str, ...], authority: Authority, start: Start
) -> None:
    good = authority.issue("alice", [])
    members = start(
        clients_flags(authority.issue("server"), authority, user=False),
        command=command,
        trust=context(authority.cert, good),
        show=shown(good, authority),
    )
    assert is_refused(members, *shown(None, authority))


def test_a_revoked_certificate_is_refused_also_when_the_list_comes_later(
    command: tuple[str, ...], authority: Authority, start: Start
) -> None:
    good, lost, soon = (authority.issue(name, []) for name in ("alice", "lost", "soon"))
    listed = authority.revocations(lost)
    flags = [*clients_flags(authority.issue("server"), authority), "--client-crl-file", str(listed)]
    members = start(flags, command=command, trust=context(authority.cert, good), show=shown(good, authority))
    assert is_refused(members, *shown(lost, authority))
    assert not is_refused(members, *shown(soon, authority))
    authority.revocations(soon)
    assert is_refused(members, *shown(soon, authority))
    assert not is_refused(members, *shown(good, authority))


def session_of(place: tuple[str, int], trust: ssl.SSLContext) -> ssl.SSLSession | None:
    """Of a first connection; of TLS 1.2, where it comes with the handshake."""
    trust.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(place, 20) as plain, trust.wrap_socket(plain, server_hostname="localhost") as first:
        return first.session


def is_resumed(place: tuple[str, int], trust: ssl.SSLContext, session: ssl.SSLSession | None) -> bool | None:
    """Whether a connection that is answered goes on with that session."""
    with (
        socket.create_connection(place, 20) as plain,
        trust.wrap_socket(plain, server_hostname="localhost", session=session) as again,
    ):
        again.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        if b"200" not in again.recv(100):
            raise ConnectionError("no answer")
        return again.session_reused


def test_a_session_does_not_go_on_once_its_certificate_is_revoked(authority: Authority, start: Start) -> None:
    user = authority.issue("alice", [])
    flags = [*clients_flags(authority.issue("server"), authority), "--client-crl-file", str(authority.revocations())]
    trust = context(authority.cert, user)
    members = start(flags, trust=trust, show=shown(user, authority))
    place = ("127.0.0.1", members.secure[0].client_port)
    session = session_of(place, trust)
    assert is_resumed(place, trust, session)
    authority.revocations(user)
    with pytest.raises(OSError):
        is_resumed(place, trust, session)


def test_a_session_does_not_go_on_once_its_certificate_is_too_old(authority: Authority, start: Start) -> None:
    members = start(
        clients_flags(authority.issue("server"), authority),
        trust=context(authority.cert, authority.issue("bob", [])),
    )
    place = ("127.0.0.1", members.secure[0].client_port)
    for seconds in (3, 6, 12, 24):  # a busy machine may take longer for all this
        ends = datetime.now(UTC) + timedelta(seconds=seconds)
        trust = context(authority.cert, authority.issue("alice", [], ends=ends))
        with contextlib.suppress(OSError):
            session = session_of(place, trust)
            assert is_resumed(place, trust, session)
            break
    else:
        raise AssertionError("no session goes on")
    time.sleep((ends - datetime.now(UTC)).total_seconds() + 1.1)
    with pytest.raises(OSError):
        is_resumed(place, trust, session)
    members.said("rejected connection on client endpoint: invalid peer certificate: certificate expired")


def test_handshakes_that_do_not_end_are_ended_and_hold_nobody_up(authority: Authority, start: Start) -> None:
    members = start(
        clients_flags(authority.issue("server")), trust=context(authority.cert), show=shown(authority=authority)
    )
    place = ("127.0.0.1", members.secure[0].client_port)
    begin = time.monotonic()
    with ExitStack() as ends:
        # The head of a handshake message of 500 bytes, of which nothing comes.
        silent = [ends.enter_context(socket.create_connection(place, 60)) for _ in range(100)]
        for one in silent:
            one.sendall(b"\x16\x03\x01\x01\xf4\x01")
        members.ctl("put", "k", "v")
        for _ in range(50):
            with socket.create_connection(place, 30) as wrong:
                wrong.sendall(b"\x16\x03\x01\xff\xff" + b"x" * 3000)
                wrong.recv(100)
        assert members.ctl("get", "k") == "k\nv\n"
        assert time.monotonic() - begin < HANDSHAKE_S
        for one in silent:
            assert one.recv(100) == b""
    took = time.monotonic() - begin
    assert HANDSHAKE_S - 2 < took < HANDSHAKE_S + 20
    rejected = [line for line in members.members[0].told() if "rejected connection" in line["msg"]]
    assert len(rejected) < took, "one line a second at most"
    assert any(line["skipped-lines"] for line in rejected), rejected


def serial(port: int, trust: ssl.SSLContext) -> str:
    """Of the certificate that is shown there."""
    with (
        socket.create_connection(("127.0.0.1", port), 30) as plain,
        trust.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        shown = secure.getpeercert()
        assert shown is not None
        return str(shown["serialNumber"])


def test_a_renewed_certificate_is_shown_without_a_restart_under_a_running_watch(
    command: tuple[str, ...], authority: Authority, start: Start
) -> None:
    trust = context(authority.cert)
    members = start(
        clients_flags(authority.issue("server")), command=command, trust=trust, show=shown(authority=authority)
    )
    port = members.secure[0].client_port
    before = serial(port, trust)
    watch = subprocess.Popen(members.ctl_command("watch", "k", "--rev=1"), stdout=subprocess.PIPE, text=True)
    try:
        assert watch.stdout is not None
        members.ctl("put", "k", "1")
        assert [watch.stdout.readline() for _ in range(3)] == ["PUT\n", "k\n", "1\n"]
        authority.issue("server")
        assert serial(port, trust) != before
        members.ctl("put", "k", "2")
        assert [watch.stdout.readline() for _ in range(3)] == ["PUT\n", "k\n", "2\n"]
    finally:
        watch.kill()
        watch.wait()


def test_a_wrong_new_certificate_leaves_the_old_one(authority: Authority, start: Start) -> None:
    trust, pair = context(authority.cert), authority.issue("server")
    members = start(clients_flags(pair), trust=trust, show=shown(authority=authority))
    port = members.secure[0].client_port
    before, text = serial(port, trust), pair.cert.read_text()
    for wrong in ("", "no certificate\n", self_signed(authority.directory).cert.read_text()):
        pair.cert.write_text(wrong)
        assert serial(port, trust) == before
    members.said("the clients' TLS configuration stays what it was: tls: failed to find any PEM data")
    members.said("stays what it was: tls: private key does not match public key")
    pair.cert.unlink()
    assert serial(port, trust) == before
    members.said(f"stays what it was: open {pair.cert}: no such file or directory")
    pair.cert.write_text(text)
    assert serial(port, trust) == before
    members.said("the clients' TLS configuration was read anew")


def test_one_self_signed_certificate_may_be_everything(
    command: tuple[str, ...], authority: Authority, start: Start
) -> None:
    pair = self_signed(authority.directory)
    everything = ["--cert-file", str(pair.cert), "--key-file", str(pair.key), "--trusted-ca-file", str(pair.cert)]
    show = ["--cacert", str(pair.cert), "--cert", str(pair.cert), "--key", str(pair.key)]
    members = start([*everything, "--client-cert-auth"], command=command, trust=context(pair.cert, pair), show=show)
    assert members.ctl("put", "k", "v") == "OK\n"
    assert is_refused(members, "--cacert", str(pair.cert))


def test_hosts_that_a_clients_certificate_must_name(authority: Authority, start: Start) -> None:
    good, other = authority.issue("one", ["one.example"]), authority.issue("two", ["two.example"])
    flags = [*clients_flags(authority.issue("server"), authority), "--client-cert-allowed-hostname=one.example"]
    members = start(flags, trust=context(authority.cert, good), show=shown(good, authority))
    assert not is_refused(members, *shown(good, authority))
    assert is_refused(members, *shown(other, authority))
    members.said("client certificate authentication failed")


def test_one_port_speaks_both(command: tuple[str, ...], authority: Authority, start: Start) -> None:
    members = start(
        clients_flags(authority.issue("server")),
        wait=False,
        command=command,
        trust=context(authority.cert),
        show=shown(authority=authority),
    )
    member = members.secure[0]
    member.stop(9)
    both = f"https://127.0.0.1:{member.client_port},http://127.0.0.1:{member.client_port}"
    member.start(members.initial, "new", "--listen-client-urls", both)
    members.wait()
    members.ctl("put", "k", "v")
    member.clients = "http"
    assert member.healthy()
    if command == OURS:  # where etcd 3.4 loses gRPC without TLS
        members.show = []
        assert members.ctl("get", "k") == "k\nv\n"


def test_a_member_makes_its_own_certificate(command: tuple[str, ...], start: Start) -> None:
    members = start(["--auto-tls"], command=command, trust=context(None))
    members.show = ["--insecure-transport=false", "--insecure-skip-tls-verify"]
    members.ctl("put", "k", "v")
    made = members.directory / "m0/fixtures/client/cert.pem"
    members.show = ["--cacert", str(made)]
    assert members.ctl("get", "k") == "k\nv\n"
    assert is_refused(members, "--insecure-transport=false")
    before = made.read_bytes()
    members.members[0].stop()
    members.members[0].start(members.initial)
    members.wait()
    assert made.read_bytes() == before
    assert (made.parent / "key.pem").stat().st_mode & 0o777 == 0o600


def test_clients_come_through_a_socket_file(authority: Authority, start: Start) -> None:
    plain, secure = authority.directory / "plain.sock", authority.directory / "secure.sock"
    members = start(clients_flags(authority.issue("server")), wait=False, trust=context(authority.cert))
    member = members.secure[0]
    member.stop(9)
    urls = f"unix://{plain},unixs://{secure},{member.client_url}"
    member.start(members.initial, "new", "--listen-client-urls", urls)
    members.wait()
    words = [members.ctl_command()[0], f"--endpoints=unix://{plain}", "put", "k", "v"]
    assert subprocess.run(words, capture_output=True, text=True, timeout=60).stdout == "OK\n"
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(plain))
    connection.request("GET", "/health")
    assert b'"health":"true"' in connection.getresponse().read()
    connection.close()
    assert plain.stat().st_mode & 0o777 == 0o660
    member.stop()
    assert not plain.exists() and not secure.exists()


def mistakes(authority: Authority, url: str) -> list[tuple[str, list[str]]]:
    """What etcd says to wrong flags of a member that listens at `url`."""
    pair, other, nothing = authority.issue("server"), authority.issue("other"), authority.directory / "nothing.pem"
    nothing.write_text("nothing\n")
    both = [f"--cert-file={pair.cert}", f"--key-file={pair.key}"]
    secure = f"https://{url}"
    no_pair = f"TLS key/cert (--cert-file, --key-file) must be provided for client url {secure} with HTTPS scheme"
    no_pem = "tls: failed to find any PEM data in"
    return [
        (no_pair, []),
        (f"KeyFile and CertFile must both be present[key: , cert: {pair.cert}]", both[:1]),
        ("open /none/cert: no such file or directory", ["--cert-file=/none/cert", both[1]]),
        ("open /none/ca: no such file or directory", [*both, "--trusted-ca-file=/none/ca"]),
        ("tls: private key does not match public key", [both[0], f"--key-file={other.key}"]),
        (f"{no_pem} certificate input", [f"--cert-file={nothing}", both[1]]),
        (f"{no_pem} key input", [both[0], f"--key-file={nothing}"]),
        ('unexpected TLS cipher suite "X"', [*both, "--cipher-suites=X"]),
        (f"URL scheme must be http, https, unix, or unixs: ftp://{url}", [f"--listen-client-urls=ftp://{url}"]),
    ]


def test_bad_flags_are_refused_in_etcds_words(command: tuple[str, ...], authority: Authority, tmp_path: Path) -> None:
    client, peer = (f"127.0.0.1:{port}" for port in free_ports(2))
    rest = [f"--listen-client-urls=https://{client}", f"--advertise-client-urls=https://{client}"]
    rest += [f"--{kind}=http://{peer}" for kind in ("listen-peer-urls", "initial-advertise-peer-urls")]
    rest += [f"--initial-cluster=default=http://{peer}", f"--data-dir={tmp_path}/d"]
    for sentence, words in mistakes(authority, client):
        done = subprocess.run([*command, *rest, *words], capture_output=True, text=True, timeout=60)
        assert done.returncode != 0
        assert sentence in done.stderr.replace('\\"', '"'), (sentence, done.stderr)


def test_a_key_that_everybody_may_read_is_told(authority: Authority, start: Start) -> None:
    pair: Pair = authority.issue("server")
    pair.key.chmod(0o644)
    members = start(clients_flags(pair), trust=context(authority.cert))
    members.said("everybody on this machine may read a key; chmod 600 it", path=str(pair.key))
