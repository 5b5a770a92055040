"""Endpoints that a domain's SRV records name, as etcd's client looks for them (`--discovery-srv`). It blocks."""

from __future__ import annotations

import secrets
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

RESOLVER = Path("/etc/resolv.conf")
DNS_PORT = 53
ANSWER_S = 2.0
"""How long a name server may take."""
TRIES = 2
MAX_ANSWER_BYTES = 65_535
_SRV, _INTERNET = 33, 1
_RECURSION_DESIRED, _ANSWER, _TRUNCATED, _FAILURE = 0x0100, 0x8000, 0x0200, 0x000F
_HEAD = struct.Struct(">HHHHHH")
_RECORD = struct.Struct(">HHIH")
_SERVICE = struct.Struct(">HHH")
_POINTER = 0xC0
_MAX_NAME = 255


class DiscoveryError(ValueError):
    """Nothing was found; the text is a sentence."""


def nameservers(path: Path = RESOLVER) -> list[tuple[str, int]]:
    """Those that the system asks."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        lines = []
    found = [(words[1], DNS_PORT) for words in lines if len(words) > 1 and words[0] == "nameserver"]
    return found or [("127.0.0.1", DNS_PORT)]


def endpoints(domain: str, service: str = "", *, servers: Sequence[tuple[str, int]] | None = None) -> list[str]:
    """`https://` endpoints of `_etcd-client-ssl._tcp.DOMAIN` and `http://` ones of `_etcd-client._tcp.DOMAIN`, where
    `-SERVICE` follows `etcd-client` if one is given. Raises DiscoveryError when neither has records."""
    servers = nameservers() if servers is None else servers
    suffix = f"-{service}" if service else ""
    found: list[str] = []
    failed: list[str] = []
    for scheme, kind in (("https", "etcd-client-ssl"), ("http", "etcd-client")):
        name = f"_{kind}{suffix}._tcp.{domain}"
        try:
            found += [f"{scheme}://{place}" for place in _lookup(name, servers)]
        except DiscoveryError as error:
            failed.append(str(error))
    if len(failed) == 2:
        raise DiscoveryError(f"dns lookup errors: {failed[0]} and {failed[1]}")
    return found


def _lookup(name: str, servers: Sequence[tuple[str, int]]) -> list[str]:
    """`host:port` of a name's records, the first that are to be tried first."""
    why = "no such host"
    for server in [*servers] * TRIES:
        try:
            records = sorted(_ask(name, server))
        except (OSError, _WrongAnswerError) as error:
            why = f"{server[0]}: {getattr(error, 'strerror', None) or error}"
            continue
        if records:
            return [place for _, _, place in records]
        why = "no such host"
        break
    raise DiscoveryError(f"lookup {name}: {why}")


class _WrongAnswerError(Exception):
    """What a name server sent makes no sense."""


def _ask(name: str, server: tuple[str, int]) -> list[tuple[int, int, str]]:
    """Priority, weight (negative) and `host:port` of each record (RFC 2782)."""
    identity = secrets.randbelow(1 << 16)
    labels = name.rstrip(".").encode("idna").split(b".")
    asked_for = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    question = _HEAD.pack(identity, _RECURSION_DESIRED, 1, 0, 0, 0) + asked_for + struct.pack(">HH", _SRV, _INTERNET)
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asked:
        asked.settimeout(ANSWER_S)
        # Connected, so that nobody else's word is taken.
        asked.connect(server)
        asked.send(question)
        answer = asked.recv(MAX_ANSWER_BYTES)
    try:
        if _HEAD.unpack_from(answer)[1] & _TRUNCATED:
            answer = _over_tcp(question, server)
        return _records(answer, identity)
    except (struct.error, IndexError, UnicodeDecodeError):
        raise _WrongAnswerError("a wrong answer") from None


def _over_tcp(question: bytes, server: tuple[str, int]) -> bytes:
    with socket.create_connection(server, ANSWER_S) as stream, stream.makefile("rb") as answers:
        stream.sendall(len(question).to_bytes(2, "big") + question)
        length = int.from_bytes(answers.read(2), "big")
        return answers.read(length)


def _records(answer: bytes, identity: int) -> list[tuple[int, int, str]]:
    known, flags, questions, count, _, _ = _HEAD.unpack_from(answer)
    if known != identity or not flags & _ANSWER:
        raise _WrongAnswerError("an answer to another question")
    if flags & _FAILURE:
        return []
    at = _HEAD.size
    for _ in range(questions):
        at = _name(answer, at)[1] + 4
    found = []
    for _ in range(count):
        at = _name(answer, at)[1]
        kind, _, _, length = _RECORD.unpack_from(answer, at)
        at += _RECORD.size
        if kind == _SRV:
            priority, weight, port = _SERVICE.unpack_from(answer, at)
            found.append((priority, -weight, f"{_name(answer, at + _SERVICE.size)[0]}:{port}"))
        at += length
    return found


def _name(answer: bytes, at: int) -> tuple[str, int]:
    """A name, whose end may be elsewhere (RFC 1035, 4.1.4), and where what follows it begins."""
    labels: list[str] = []
    after = 0
    while length := answer[at]:
        if length & _POINTER == _POINTER:
            after = after or at + 2
            target = int.from_bytes(answer[at : at + 2], "big") & 0x3FFF
            if target >= at:
                raise _WrongAnswerError("a name that has no end")
            at = target
            continue
        labels.append(answer[at + 1 : at + 1 + length].decode("ascii"))
        at += 1 + length
        if sum(map(len, labels)) > _MAX_NAME:
            raise _WrongAnswerError("a name that has no end")
    return ".".join(labels), after or at + 1
