"""What goes on until it is interrupted, by kvctl and by Debian's etcdctl: the same lines of output."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks import peers
from tests.certificates import HERE, Authority
from tests.conformance.kvctl.test_lines import pair_of
from tests.conformance.kvctl.tool import Line, Tool
from tests.conformance.members import etcdctl_path, until
from tests.conformance.secured import SecureMembers, clients_flags, context, shown

Pair = tuple[Tool, Tool]
QUIET_S = 1.5
"""Silence after which nothing more is waited for, once something came."""
FIRST_S = 15.0
pytestmark = pytest.mark.skipif(etcdctl_path() is None, reason="etcdctl is not here: run make setup")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    program = etcdctl_path()
    assert program is not None
    for tools in pair_of(program, peers.etcd(str(peers.DEBIAN)), tmp_path_factory.mktemp("streams"), 1):
        for words in ("put k 1", "put k 2", "del k", 'put kk "a b"', "put m <&>"):
            for tool in tools:
                assert tool.run(Line(words)).code == 0
        yield tools


def came(process: subprocess.Popen[bytes]) -> bytes:
    """What a program prints until it is quiet."""
    assert process.stdout is not None
    found = b""
    end = time.monotonic() + FIRST_S
    while time.monotonic() < end:
        if not select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
            break
        data = os.read(process.stdout.fileno(), 1 << 16)
        if not data:
            break
        found += data
        end = time.monotonic() + QUIET_S
    return found


def followed(tool: Tool, words: str, typed: str = "") -> list[str]:
    """What a command line prints until it is quiet; then it is interrupted."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(tool.argv(Line(words)), stdin=pipe, stdout=pipe, stderr=pipe, env=tool.environment({}))
    try:
        assert process.stdin is not None
        process.stdin.write(typed.encode())
        process.stdin.flush()
        found = came(process)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(5)
        finally:
            process.kill()
            process.communicate()
    assert found, f"{words}: nothing came"
    return [tool.plain(line, Line(words)) for line in found.decode("latin-1").split("\n")]


def same(pair: Pair, words: str, typed: str = "") -> list[str]:
    with ThreadPoolExecutor(2) as threads:
        theirs, ours = threads.map(lambda tool: followed(tool, words, typed), pair)
    assert ours == theirs
    return ours


@pytest.mark.parametrize("form", ["simple", "json", "fields"])
def test_watch(form: str, pair: Pair) -> None:
    same(pair, f"watch k --rev=2 -w {form}")
    same(pair, f"watch k --prefix --prev-kv --rev=3 -w {form}")
    same(pair, f"watch k l --rev=2 -w {form}")
    same(pair, f"watch m --rev=1 -w {form}{' --hex' if form == 'simple' else ''}")


def test_watch_runs_a_command(pair: Pair) -> None:
    told = same(
        pair,
        "watch k --prefix --rev=2 -- sh -c "
        "'echo $ETCD_WATCH_REVISION $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE'",
    )
    assert '"kk"' in " ".join(told)


def test_watches_that_are_typed(pair: Pair) -> None:
    same(pair, "watch -i", "watch k --rev=2\n")
    same(pair, "watch -i -w json", 'watch k "l" --rev=2 --prev-kv\n')
    assert any("progress notify: " in line for line in same(pair, "watch -i", "watch k --rev=5\nprogress\n"))


def test_a_lease_is_kept_alive(pair: Pair) -> None:
    for tool in pair:
        tool.run(Line("lease grant 600", save={"lease": r"lease (\w+) granted"}))
    for form in ("simple", "json", "fields"):
        same(pair, f"lease keep-alive {{lease}} -w {form}")


@pytest.mark.parametrize("form", ["simple", "json", "fields"])
def test_a_lock_and_a_lead_are_held_until_interrupted(form: str, pair: Pair) -> None:
    same(pair, f"lock lock -w {form}")
    same(pair, f"elect vote me -w {form}")
    for tool in pair:
        assert tool.run(Line("get lock/ --prefix")).out == tool.run(Line("get vote/ --prefix")).out == [""]


def test_both_clients_contend_for_one_lock(pair: Pair) -> None:
    """Each at the other's server: kvctl waits for etcdctl, and etcdctl for kvctl."""
    for first, second in (pair, pair[::-1]):
        endpoints = ["--endpoints", first.members.members[0].client_url]
        with subprocess.Popen([*first.command, *endpoints, "lock", "lock"], stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None and holder.stdout.readline()
            waiting = [*second.command, *endpoints, "lock", "lock", "echo", "mine"]
            with subprocess.Popen(waiting, stdout=subprocess.PIPE) as waiter:
                assert waiter.stdout is not None
                assert not select.select([waiter.stdout], [], [], QUIET_S)[0], "the lock is held"
                holder.send_signal(signal.SIGTERM)
                assert waiter.stdout.readline() == b"mine\n"
                assert (holder.wait(5), waiter.wait(5)) == (0, 0)


def test_a_listener_sees_each_leader(pair: Pair) -> None:
    for form in ("simple", "json", "fields"):
        seen = []
        for tool in pair:
            urls = tool.argv(Line(""))
            listener = subprocess.Popen([*urls, "elect", "-l", "vote", "-w", form], stdout=subprocess.PIPE)
            leader = None
            try:
                first = subprocess.Popen([*urls, "elect", "vote", "one"], stdout=subprocess.PIPE)
                leader = first
                found = came(listener)
                leader.send_signal(signal.SIGINT)
                assert leader.wait(5) == 0
                leader = subprocess.Popen([*urls, "elect", "vote", "two"], stdout=subprocess.PIPE)
                found += came(listener)
                seen.append([tool.plain(line, Line("")) for line in found.decode().split("\n")])
            finally:
                listener.send_signal(signal.SIGINT)
                assert listener.wait(5) == 0
                if leader is not None:
                    leader.send_signal(signal.SIGINT)
                    leader.wait(5)
        assert seen[0] == seen[1]


MIRRORS = ("", "--prefix k", "--prefix k --dest-prefix z/", "--prefix k --no-dest-prefix")


@pytest.mark.parametrize("flags", MIRRORS, ids=lambda flags: flags or "all")
def test_a_mirror_holds_what_etcdctls_holds(flags: str, pair: Pair, tmp_path: Path) -> None:
    """Both mirror their own servers, which hold the same, and follow changes."""
    held = [mirrored(tool, tmp_path / str(at), flags) for at, tool in enumerate(pair)]
    assert held[0] == held[1]


def test_a_mirror_of_changes_alone(pair: Pair, tmp_path: Path) -> None:
    """What etcdctl 3.4 lacks: from a revision on, only what changes."""
    found = mirrored(pair[1], tmp_path, f"--prefix k --rev {_revision(pair[1]) + 1}")
    assert found == ["k/last", "1", ""]


def _revision(tool: Tool) -> int:
    status = tool.members.status(tool.members.members[0])
    return int(status["header"]["revision"])


def mirrored(tool: Tool, directory: Path, flags: str) -> list[str]:
    """What a new server holds once it mirrors a tool's, and three changes there."""
    there = Tool(tool.command, peers.etcd(str(peers.DEBIAN)), directory)
    process = None
    try:
        there.start()
        words = f"make-mirror {flags} {there.members.members[0].client_url}"
        pipe = subprocess.PIPE
        process = subprocess.Popen(tool.argv(Line(words)), stdout=pipe, stderr=pipe, env=tool.environment({}))
        for change in ("put k/new 1", "del k/new", "put k/last 1"):
            assert tool.run(Line(change)).code == 0
        deadline = time.monotonic() + FIRST_S
        while "last" not in " ".join(found := there.run(Line("get '' --prefix")).out):
            assert time.monotonic() < deadline, (found, process.poll())
            time.sleep(0.1)
        return found
    finally:
        if process is not None:
            process.kill()
            process.communicate()
        there.close()
        tool.run(Line("del k/ --prefix"))


def test_a_mirror_at_a_server_with_tls(pair: Pair, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    server, client = authority.issue("server", hosts=HERE), authority.issue("client")
    show = shown(client, authority)
    trust = context(authority.cert, client)
    flags = clients_flags(server, authority, user=False)
    there = SecureMembers(
        tmp_path / "there", flags=lambda _: flags, command=(str(peers.DEBIAN),), trust=trust, show=show
    )
    process = None
    try:
        there.start()
        words = f"make-mirror {' '.join(word.replace('--', '--dest-') for word in show)} {there.members[0].client_url}"
        pipe = subprocess.PIPE
        process = subprocess.Popen(pair[1].argv(Line(words)), stdout=pipe, stderr=pipe, env=pair[1].environment({}))
        until("a mirrored key", lambda: process.poll() is not None or there.ctl("get", "kk") == "kk\na b\n")
        assert process.poll() is None
    finally:
        if process is not None:
            process.kill()
            process.communicate()
        there.close()
