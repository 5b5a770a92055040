"""The store's log: etcd's flags, formats, levels and outputs, through real processes, beside the newest etcd."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import peers
from benchmarks.ports import free_ports
from tests.conformance.members import OURS, ROOT, START_SECONDS, Member, until

TEXT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ kvstore: .+")
TS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d{4})")


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Member]:
    """One that can be started with any flags; its standard output goes to a file of its own."""
    client, peer = free_ports(2)
    one = Member("m0", tmp_path, client, peer, ["--heartbeat-interval=50", "--election-timeout=500"])
    yield one
    if one.process is not None:
        one.stop(signal.SIGKILL)


def run(member: Member, *flags: str) -> tuple[str, str]:
    """Run a member until it serves, stop it, and return what it said on standard error and on standard output."""
    urls = [
        *("--name", member.name, "--data-dir", str(member.data)),
        *("--listen-client-urls", member.client_url, "--advertise-client-urls", member.client_url),
        *("--listen-peer-urls", member.peer_url, "--initial-advertise-peer-urls", member.peer_url),
        *("--initial-cluster", f"{member.name}={member.peer_url}"),
    ]
    out, errors = member.directory / "out", member.directory / "errors"
    with out.open("wb") as stdout, errors.open("wb") as stderr:
        command = [*member.command, *urls, *member.extra, *flags]
        member.process = subprocess.Popen(command, cwd=ROOT, stdout=stdout, stderr=stderr, stdin=subprocess.DEVNULL)
        until(f"leader, see {errors}", member.healthy)
        assert member.stop() == 0
    return errors.read_text(), out.read_text()


def lines(text: str) -> list[dict[str, Any]]:
    return [dict(json.loads(line)) for line in text.splitlines()]


def test_by_default_lines_are_etcds_json_on_standard_error(member: Member) -> None:
    said, out = run(member)
    assert out == ""
    told = lines(said)
    for line in told:
        assert list(line)[:4] == ["level", "ts", "caller", "msg"], line
        assert TS.fullmatch(line["ts"]), line
        assert re.fullmatch(r"[a-z_/]+\.rs:[1-9]\d*", line["caller"]), line
        assert line["msg"] and line["level"] in ("info", "warn"), line
    (starts,) = [line for line in told if line["msg"] == "a member starts"]
    assert (starts["name"], starts["data-dir"]) == ("m0", str(member.data))
    (serves,) = [line for line in told if line["msg"] == "requests are taken"]
    (leads,) = [line for line in told if line["msg"] == "the leader is another"]
    assert leads["leader-id"] == leads["local-member-id"] == serves["local-member-id"]
    assert isinstance(leads["term"], int) and leads["caller"].startswith("reactor.rs:")
    assert any(line.get("signal") == "terminated" for line in told)


def test_lines_of_text_are_for_people(member: Member) -> None:
    said, _ = run(member, "--log-format=console", "--bcrypt-cost=99")
    told = said.splitlines()
    assert all(TEXT.fullmatch(line) for line in told), said
    assert any(" WARN kvstore: --bcrypt-cost is not 4 to 31; 10 is taken (cost=99)" in line for line in told), said
    assert any(" INFO kvstore: the leader is another (" in line for line in told), said


def ended(member: Member) -> None:
    """Open a connection that ends in the middle of its handshake, which is told at the level debug alone."""
    with socket.create_connection(("127.0.0.1", member.client_port), 5) as one:
        one.sendall(b"\x16\x03\x01")


@pytest.mark.parametrize(
    ("level", "wanted"),
    [
        ("debug", {"debug", "info", "warn"}),
        ("INFO", {"info", "warn"}),
        ("warn", {"warn"}),
        ("error", set[str]()),
        ("panic", set[str]()),
        ("fatal", set[str]()),
    ],
)
def test_levels_filter(member: Member, level: str, wanted: set[str]) -> None:
    both = f"--listen-client-urls={member.client_url},{member.client_url.replace('http', 'https')}"
    member.start(f"m0={member.peer_url}", "new", "--auto-tls", both, f"--log-level={level}", "--bcrypt-cost=99")
    data = member.data / "fixtures/client/cert.pem"
    until("its certificate", data.exists)
    until("its port", lambda: not _refused(member))
    for _ in range(3):
        ended(member)
    until("its lines", lambda: wanted <= {line["level"] for line in member.told()})
    assert member.stop() == 0
    assert {line["level"] for line in member.told()} == wanted


def _refused(member: Member) -> bool:
    try:
        ended(member)
    except ConnectionRefusedError:
        return True
    return False


def test_a_variable_and_the_configuration_file_say_it_too(member: Member, tmp_path: Path) -> None:
    said, _ = _with_environment(member, {"ETCD_LOG_LEVEL": "warn", "ETCD_LOG_FORMAT": "console"})
    assert said == ""
    path, log = tmp_path / "etcd.yaml", tmp_path / "own.log"
    path.write_text(
        f"name: m0\ndata-dir: {member.data}\nlog-level: info\nlog-format: json\nlogger: zap\nlog-outputs: [{log}]\n"
        f"listen-client-urls: {member.client_url}\nadvertise-client-urls: {member.client_url}\n"
        f"listen-peer-urls: {member.peer_url}\ninitial-advertise-peer-urls: {member.peer_url}\n"
        f"initial-cluster: m0={member.peer_url}\n"
    )
    process = subprocess.Popen([*OURS, f"--config-file={path}"], cwd=ROOT)
    try:
        until("leader", member.healthy)
    finally:
        process.terminate()
        assert process.wait(START_SECONDS) == 0
    assert "requests are taken" in {line["msg"] for line in lines(log.read_text())}


def _with_environment(member: Member, variables: Mapping[str, str]) -> tuple[str, str]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        return run(member)
    finally:
        os.environ.clear()
        os.environ.update(before)


def test_lines_go_to_each_output_and_files_grow(member: Member, tmp_path: Path) -> None:
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    first.write_text("what was there\n")
    said, out = run(member, f"--log-outputs={first},stdout,{second},stdout")
    assert said == ""
    assert out == second.read_text() and len(lines(out)) >= 4
    assert first.read_text() == "what was there\n" + out
    said, out = run(member, "--log-outputs=stderr,/dev/null")
    assert said == out == ""


def test_the_last_line_says_why_and_standard_error_has_it_too(tmp_path: Path) -> None:
    log, data = tmp_path / "own.log", tmp_path / "data"
    data.write_text("no directory")
    words = [f"--data-dir={data}", "--log-level=fatal", f"--log-outputs={log}"]
    words += ["--listen-client-urls=http://127.0.0.1:0", "--listen-peer-urls=http://127.0.0.1:0"]
    done = subprocess.run([*OURS, *words], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    (line,) = lines(log.read_text())
    assert line["level"] == "fatal" and str(data) in line["msg"]
    assert TEXT.fullmatch(done.stderr.strip()) and line["msg"] in done.stderr
    words[1] = "--log-level=info"
    done = subprocess.run([*OURS, *words, "--wal-dir=/w"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    told = lines(log.read_text())
    assert any(line["level"] == "warn" and "--wal-dir has no effect" in line["msg"] for line in told), told


REFUSED = (
    ("--log-level=loud", 'unrecognized level: "loud"'),
    ("--log-format=xml", "unknown log format: xml, supported values json, console"),
    ("--logger=capnslog", "--logger=capnslog is removed in v3.5"),
    ("--logger=x", 'unknown logger option "x"'),
    ("--log-outputs=default,stdout", 'multi logoutput for "default" is not supported yet'),
    ("--log-outputs=/no/such/log", 'open sink "/no/such/log": open /no/such/log: no such file or directory'),
)
"""What makes no sense, and etcd's words for it."""
OWN = (
    ("--enable-log-rotation", "--enable-log-rotation is not known here: "),
    ("--log-outputs=systemd/journal", "systemd/journal is not known here: "),
)


TOGETHER = (
    (
        "--election-timeout=400",
        "--election-timeout[400ms] should be at least as 5 times as --heartbeat-interval[100ms]",
    ),
    ("--initial-cluster-state=old", "--initial-cluster-state is 'new' or 'existing', not 'old'"),
    ("--metrics=all", "--metrics is 'basic' or 'extensive', not 'all'"),
    ("--auth-token=jwt,sign-method=RS256,pub-key=/no/key", "/no/key"),
)
"""What makes no sense beside other settings, or is found out where the files are read."""


@pytest.mark.parametrize(("flag", "sentence"), [*REFUSED, *OWN, *TOGETHER])
def test_what_makes_no_sense_is_refused_and_leaves_nothing(tmp_path: Path, flag: str, sentence: str) -> None:
    done = refused(OURS, tmp_path, flag)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("kvstore: ") and done.stderr.count("\n") == 1, done.stderr
    assert sentence in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_log_file_has_it_too(tmp_path: Path) -> None:
    log = tmp_path / "own.log"
    done = subprocess.run(
        [*OURS, "--metrics=all", f"--log-outputs=stderr,{log}", "--wal-dir=/w"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    (line,) = lines(log.read_text())
    assert line["level"] == "fatal"
    assert (done.returncode, done.stderr) == (2, f"kvstore: {line['msg']}\n")


def test_a_certificate_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    urls = ["--listen-client-urls=https://127.0.0.1:0", "--advertise-client-urls=https://127.0.0.1:1"]
    files = ["--cert-file=/no/cert", "--key-file=/no/key", f"--data-dir={tmp_path}/data"]
    done = subprocess.run([*OURS, *urls, *files], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("kvstore: ") and done.stderr.count("\n") == 1 and "/no/" in done.stderr, done.stderr


def test_etcd_uses_the_same_words(tmp_path: Path) -> None:
    etcd, why = peers.newest()
    if etcd is None:
        pytest.skip(why)
    for flag, sentence in REFUSED:
        done = refused(etcd.command, tmp_path, flag)
        assert done.returncode != 0
        assert sentence in done.stderr.replace('\\"', '"'), (flag, done.stderr[-500:])


def refused(command: tuple[str, ...], directory: Path, flag: str) -> subprocess.CompletedProcess[str]:
    urls = ["--listen-client-urls=http://127.0.0.1:0", "--listen-peer-urls=http://127.0.0.1:0"]
    urls += ["--advertise-client-urls=http://127.0.0.1:1", f"--data-dir={directory}/data"]
    return subprocess.run(
        [*command, *urls, flag], cwd=ROOT, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
