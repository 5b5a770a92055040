"""The JSON gateway of our store where etcd's is no measure: streams both ways at once, bounds, TLS and unix sockets."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority
from tests.conformance.members import Member, Members, until
from tests.conformance.secured import clients_flags, context

TIMEOUT_S = 60.0
KEY = b64encode(b"k").decode()
PUT = {"key": KEY, "value": KEY}


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Member]:
    members = Members(tmp_path, 1)
    try:
        members.start()
        yield members.members[0]
    finally:
        members.close()


def post(connection: http.client.HTTPConnection, path: str, body: str) -> tuple[int, Any]:
    connection.request("POST", path, body.encode())
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def connect(member: Member) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", member.client_port, timeout=TIMEOUT_S)


def chunk(text: str) -> bytes:
    return f"{len(text):x}\r\n{text}\r\n".encode()


def test_a_watch_takes_requests_while_it_tells_events(member: Member) -> None:
    with socket.create_connection(("127.0.0.1", member.client_port), TIMEOUT_S) as raw:
        raw.settimeout(TIMEOUT_S)
        raw.sendall(b"POST /v3/watch HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        create = json.dumps({"create_request": {"key": KEY}})
        # An object may come in pieces.
        raw.sendall(chunk(create[:9]))
        raw.sendall(chunk(create[9:]))
        answer = raw.makefile("rb")
        while answer.readline() != b"\r\n":
            pass

        def told() -> Any:
            answer.readline()
            line = json.loads(answer.readline())
            answer.readline()
            return line

        assert told()["result"]["created"]
        assert post(connect(member), "/v3/kv/put", json.dumps(PUT))[0] == 200
        assert told()["result"]["events"][0]["kv"]["key"] == KEY
        raw.sendall(chunk(json.dumps({"create_request": {"key": KEY, "watch_id": 7}})))
        assert told()["result"]["watch_id"] == "7"
        raw.sendall(chunk('{"cancel_request":{"watch_id":'))
        raw.sendall(chunk("]}"))
        assert told()["error"]["code"] == 3
        assert answer.readline() == b"0\r\n"


def test_requests_are_bounded(member: Member) -> None:
    connection = connect(member)
    deep = '{"success":[{"request_txn":' * 20_000
    status, answer = post(connection, "/v3/kv/txn", deep)
    assert (status, answer["code"]) == (400, 3)
    assert "recursion limit" in answer["message"]
    for megabytes in (5, 20):
        body = json.dumps({"key": KEY, "value": "A" * (megabytes << 20)})
        status, answer = post(connection, "/v3/kv/put", body)
        assert (status, answer["code"]) == (429, 8), megabytes
    assert post(connection, "/v3/kv/range", json.dumps({"key": KEY}))[0] == 200


def test_the_gateway_speaks_tls_and_listens_on_socket_files(tmp_path: Path, authority: Authority) -> None:
    path = tmp_path / "kv.sock"
    members = Members(tmp_path / "m", 1)
    member = members.members[0]
    secure = f"https://127.0.0.1:{member.client_port}"
    flags = [f"--listen-client-urls={secure},unix://{path}", *clients_flags(authority.issue("server"))]
    try:
        member.start(members.initial, "new", *flags)
        on_file = http.client.HTTPConnection("localhost", timeout=TIMEOUT_S)
        on_file.sock = dialed(path)
        assert post(on_file, "/v3/kv/put", json.dumps(PUT))[0] == 200
        trust: ssl.SSLContext = context(authority.cert)
        over_tls = http.client.HTTPSConnection("localhost", member.client_port, timeout=TIMEOUT_S, context=trust)
        status, found = post(over_tls, "/v3/kv/range", json.dumps({"key": KEY}))
        assert (status, found["kvs"][0]["value"]) == (200, KEY)
    finally:
        members.close()


def dialed(path: Path) -> socket.socket:
    """A connection to a socket file, as soon as somebody listens there."""
    until("a socket file", path.exists)
    dialed = socket.socket(socket.AF_UNIX)
    dialed.settimeout(TIMEOUT_S)
    until("one that listens there", lambda: dialed.connect_ex(str(path)) == 0)
    return dialed


def test_who_goes_away_while_he_waits_for_a_lock_leaves_no_key(member: Member) -> None:
    name = b64encode(b"l").decode()
    prefix = json.dumps({"key": b64encode(b"l/").decode(), "range_end": b64encode(b"l0").decode(), "count_only": True})

    def count() -> int:
        return int(post(connect(member), "/v3/kv/range", prefix)[1].get("count", 0))

    for lease in ("77", "78"):
        assert post(connect(member), "/v3/lease/grant", json.dumps({"ID": lease, "TTL": "600"}))[0] == 200
    assert post(connect(member), "/v3/lock/lock", json.dumps({"name": name, "lease": "77"}))[0] == 200
    waiting = connect(member)
    waiting.request("POST", "/v3/lock/lock", json.dumps({"name": name, "lease": "78"}))
    until("the second key", lambda: count() == 2)
    waiting.close()
    until("its end", lambda: count() == 1)
