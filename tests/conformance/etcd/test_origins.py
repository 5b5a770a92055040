"""Plain HTTP where browsers are concerned, beside etcd: pages of which origins see answers, and names of the host."""

from __future__ import annotations

import http.client
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import peers
from tests.conformance.etcd.beside import NEEDS_CLIENTS, Beside, beside, references
from tests.conformance.etcd.side import Side
from tests.conformance.members import ROOT

pytestmark = NEEDS_CLIENTS
TIMEOUT_S = 10.0
HELD = ("access-control-", "allow", "content-type", "x-content-type-options")
"""How the headers begin that are compared; those of ours alone are compared as well."""
LISTS = ["--cors=http://a.example:80,http://b.example:8080", "--host-whitelist=good.example,127.0.0.1,::1"]


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beside]:
    yield from beside(1, tmp_path_factory.mktemp("usual"))


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beside]:
    yield from beside(1, tmp_path_factory.mktemp("listed"), LISTS)


def asked(side: Side, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> dict[str, Any]:
    """What comes of a request: its status, the headers that count, and the text of a refusal."""
    connection = http.client.HTTPConnection("127.0.0.1", side.members.members[0].client_port, timeout=TIMEOUT_S)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in ({"Host": "127.0.0.1:2379"} | dict(headers)).items():
            connection.putheader(name, value)
        if body:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body or None)
        answer = connection.getresponse()
        text = answer.read().decode()
        kept = {name.lower(): value for name, value in answer.getheaders() if name.lower().startswith(HELD)}
        if answer.status != 421:
            kept.pop("x-content-type-options", None)
        return {"status": answer.status, "headers": kept, "text": text if answer.status == 421 else ""}
    finally:
        connection.close()


RANGE = b'{"key":"Zm9v"}'
ORIGINS = ("http://a.example:80", "http://b.example:8080", "http://a.example", "https://a.example:80", "null", "")
HOSTS = ("good.example", "good.example:2379", "127.0.0.1", "[::1]:2379", "[::1]", "evil.example:80", "GOOD.example", "")
ASKED = [
    *(
        (method, path, {"Origin": origin})
        for origin in ORIGINS
        for method, path in (("GET", "/version"), ("PUT", "/no"))
    ),
    *(("OPTIONS", path, {"Origin": origin}) for origin in ORIGINS for path in ("/v3/kv/put", "/metrics", "/no")),
    *(("GET", "/health", {"Host": host}) for host in HOSTS),
    *(("OPTIONS", "/v3/kv/range", {"Host": host, "Origin": ORIGINS[0]}) for host in HOSTS),
    ("GET", "/metrics", {}),
]


@pytest.mark.parametrize("which", ["usual", "listed"])
def test_answers_are_etcds(which: str, request: pytest.FixtureRequest) -> None:
    sides: Beside = request.getfixturevalue(which)
    differ = []
    posts = [("POST", "/v3/kv/range", {"Origin": origin}) for origin in ORIGINS]
    for method, path, headers in [*ASKED, *posts]:
        body = RANGE if method == "POST" else b""
        theirs, ours = (asked(side, method, path, headers, body) for side in (sides.newest, sides.ours))
        if path == "/metrics":
            for one in (theirs, ours):
                one["headers"].pop("content-type", None)
        if theirs != ours:
            differ.append((method, path, headers, theirs, ours))
    assert not differ


def test_what_is_listed_counts(usual: Beside, listed: Beside) -> None:
    assert asked(usual.ours, "GET", "/health", {})["headers"]["access-control-allow-origin"] == "*"
    seen = asked(listed.ours, "OPTIONS", "/v3/kv/put", {"Origin": ORIGINS[0]})
    assert (seen["status"], seen["headers"]["access-control-allow-origin"]) == (200, ORIGINS[0])
    refused = asked(listed.ours, "POST", "/v3/kv/put", {"Host": "evil.example"}, RANGE)
    assert refused["status"] == 421 and '--host-whitelist "evil.example"' in refused["text"]
    told = [line for line in listed.ours.members.members[0].told() if "DNS rebinding" in line["msg"]]
    assert {line["host"] for line in told} >= {"evil.example"} and all(line["level"] == "warn" for line in told)


def test_grpc_over_http_1_is_no_call(listed: Beside) -> None:
    """Else a page could reach the store by a name that is not whitelisted, since only HTTP's own answers ask for it."""
    headers = {"Content-Type": "application/grpc", "Host": "evil.example"}
    frame = b"\0\0\0\0\x05\x0a\x03foo"
    sides = (listed.newest, listed.ours)
    theirs, ours = (asked(side, "POST", "/etcdserverpb.KV/Range", headers, frame) for side in sides)
    assert ours == theirs and ours["status"] == 421
    theirs, ours = (
        asked(side, "POST", "/etcdserverpb.KV/Range", headers | {"Host": "good.example"}, frame) for side in sides
    )
    assert ours == theirs and ours["status"] == 404


@pytest.mark.parametrize(
    "value", ["a.example", "*,http://a.example:80", "http://a.example:80/path", "ftp://a.example:80"]
)
def test_what_is_no_origin_is_refused(tmp_path: Path, value: str) -> None:
    urls = ["--listen-client-urls=http://127.0.0.1:0", "--listen-peer-urls=http://127.0.0.1:0"]
    urls += ["--advertise-client-urls=http://127.0.0.1:1", f"--data-dir={tmp_path}/data"]
    for peer in (references()[0], peers.ours()):
        done = subprocess.run(
            [*peer.command, *urls, f"--cors={value}"], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 2, (peer.name, done.stderr)
        assert "cors" in done.stderr and value.split(",")[0] in done.stderr
