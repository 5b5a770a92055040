"""Endpoints out of SRV records, from a name server that answers as real ones do."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import dns.resolver
import pytest

from benchmarks.ports import free_port
from cli.kvctl import security
from kvstore import discovery, gateway
from kvstore.discovery import DiscoveryError, endpoints

RECORDS = {
    "_etcd-client-ssl._tcp.example": [(20, 1, 2379, "late.example"), (10, 1, 2379, "m1.example")],
    "_etcd-client._tcp.example": [(10, 1, 2379, "open.example")],
    "_etcd-client-ssl-east._tcp.example": [(10, 1, 2380, "east.example")],
    "_etcd-server._tcp.example": [(10, 1, 2380, "localhost"), (10, 2, 2381, "localhost"), (20, 0, 1, "no.invalid")],
    "_etcd-server-ssl-east._tcp.example": [(10, 1, 2380, "localhost")],
    "_etcd-client._tcp.many": [(number, 0, 2379, f"m{number:03}.a-long-name.example") for number in range(40)],
}


def _name(text: str) -> bytes:
    return b"".join(bytes([len(part)]) + part.encode() for part in text.split(".")) + b"\0"


def _answer(question: bytes, room: int) -> bytes:
    identity, body, at = question[:2], question[12:], 12
    labels = []
    while question[at]:
        labels.append(question[at + 1 : at + 1 + question[at]].decode())
        at += 1 + question[at]
    records = RECORDS.get(".".join(labels), [])
    found = b""
    for priority, weight, port, target in records:
        data = struct.pack(">HHH", priority, weight, port) + _name(target)
        found += b"\xc0\x0c" + struct.pack(">HHIH", 33, 1, 60, len(data)) + data
    flags = 0x8180 if records else 0x8183
    whole = identity + struct.pack(">HHHHH", flags, 1, len(records), 0, 0) + body[: at + 5 - 12] + found
    if len(whole) <= room:
        return whole
    return identity + struct.pack(">HHHHH", flags | 0x0200, 1, 0, 0, 0) + body[: at + 5 - 12]


@contextmanager
def serving(port: int) -> Iterator[tuple[str, int]]:
    """A name server on both kinds of socket."""
    place = ("127.0.0.1", port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as packets, socket.create_server(place) as streams:
        packets.bind(place)

        def answer_packets() -> None:
            while True:
                question, asker = packets.recvfrom(4096)
                if question == b"end":
                    return
                packets.sendto(_answer(question, 512), asker)

        def answer_streams() -> None:
            while True:
                stream, _ = streams.accept()
                with stream:
                    head = stream.recv(2)
                    if not head:
                        return
                    whole = _answer(stream.recv(int.from_bytes(head, "big")), 65_535)
                    stream.sendall(len(whole).to_bytes(2, "big") + whole)

        threads = [threading.Thread(target=work) for work in (answer_packets, answer_streams)]
        for thread in threads:
            thread.start()
        try:
            yield place
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"end", place)
            socket.create_connection(place).close()
            for thread in threads:
                thread.join()


def asking(
    monkeypatch: pytest.MonkeyPatch, *servers: tuple[str, int], seconds: float = 0.5, patience: float = 20.0
) -> None:
    """Have these name servers asked, as the system's are: each for `seconds`, and again while `patience` lasts."""
    made = dns.resolver.Resolver(configure=False)
    made.nameservers = [host for host, _ in servers]
    made.nameserver_ports = dict(servers)
    made.timeout, made.lifetime = seconds, patience
    monkeypatch.setattr(discovery, "resolver", lambda: made)


def test_both_kinds_of_endpoints_are_found_the_secure_first(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(free_port()) as server:
        asking(monkeypatch, ("127.0.0.2", free_port()), server)
        assert endpoints("example") == [
            "https://m1.example:2379",
            "https://late.example:2379",
            "http://open.example:2379",
        ]
        assert endpoints("example", "east") == ["https://east.example:2380"]
        assert len(endpoints("many")) == 40, "the answer did not fit into a packet"
        kinds = ("etcd-client-ssl", "etcd-client")
        names = [rf"lookup _{kind}\._tcp\.none on [\d.:]+: no such host" for kind in kinds]
        with pytest.raises(DiscoveryError, match=f"dns lookup errors: {' and '.join(names)}"):
            endpoints("none")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0" * 7,
        # A name that points at itself, and one that ends nowhere.
        b"\x81\x80\0\1\0\1\0\0\0\0" + b"\xc0\x0c\0\x21\0\1",
        b"\x81\x80\0\0\0\1\0\0\0\0" + b"\x3fabc",
        b"\1\0\0\1\0\0\0\0\0\0",
    ],
)
def test_a_wrong_answer_is_none(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wrong:
        wrong.bind(("127.0.0.1", 0))

        def work() -> None:
            while True:
                question, asker = wrong.recvfrom(4096)
                if question == b"end":
                    return
                wrong.sendto(question[:2] + answer if answer else b"", asker)

        thread = threading.Thread(target=work)
        thread.start()
        asking(monkeypatch, wrong.getsockname(), seconds=0.1, patience=0.4)
        try:
            with pytest.raises(DiscoveryError, match=r"_etcd-client\._tcp\.example on 127\.0\.0\.1:53: (i/o|server)"):
                endpoints("example")
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"end", wrong.getsockname())
            thread.join()


def test_a_gateway_takes_members_without_tls_only_when_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(free_port()) as server:
        asking(monkeypatch, server)
        assert gateway.discovered("example", "", insecure=True)[-1] == "http://open.example:2379"
        assert gateway.discovered("example", "", insecure=False) == [
            "https://m1.example:2379",
            "https://late.example:2379",
        ]
        assert 'ignoring discovered insecure endpoint "http://open.example:2379"' in capsys.readouterr().err
        assert gateway.main(["start", "--discovery-srv", "none"]) == 2
        assert "dns lookup errors" in capsys.readouterr().err
        with pytest.raises(SystemExit):
            security.discovered("none", "", insecure=True)
        advice, error = capsys.readouterr().err.splitlines()
        assert advice.endswith("or the members with --endpoints.")
        assert error.startswith("Error: dns lookup errors")
