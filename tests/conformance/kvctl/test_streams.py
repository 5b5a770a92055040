"""What goes on until it is interrupted, by kvctl and by Debian's etcdctl: the same lines of output."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
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
"""Silence after which nothing more is waited for, once something came and it is what was expected."""
FIRST_S = 60.0
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


class Followed:
    """A command line that goes on, and what it has printed so far."""

    def __init__(self, tool: Tool, words: str, typed: str = "") -> None:
        self.tool, self.line = tool, Line(words)
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            tool.argv(self.line), stdin=pipe, stdout=pipe, stderr=pipe, env=tool.environment({})
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(typed.encode())
        self.process.stdin.flush()
        os.set_blocking(self.process.stdout.fileno(), False)
        self._printed = b""

    def plain(self) -> list[str]:
        """Its lines, with names put in."""
        assert self.process.stdout is not None
        self._printed += self.process.stdout.read() or b""
        return [self.tool.plain(line, self.line) for line in self._printed.decode("latin-1").split("\n")]

    def end(self) -> int:
        """Interrupt it; its exit code."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(FIRST_S)
        finally:
            self.process.kill()
            self.process.communicate()


def alike(theirs: Followed, ours: Followed) -> list[str]:
    """What both print until they are quiet. A pause in which they differ is none: a busy machine holds one up."""
    seen, since = ([""], [""]), time.monotonic()
    end = since + FIRST_S
    while time.monotonic() < end:
        if (now := (theirs.plain(), ours.plain())) != seen:
            seen, since = now, time.monotonic()
        if seen[0] == seen[1] != [""] and time.monotonic() - since > QUIET_S:
            break
        time.sleep(0.02)
    assert seen[0] != [""], f"{theirs.line.words}: nothing came"
    assert seen[1] == seen[0]
    return seen[1]


def same(pair: Pair, words: str, typed: str = "") -> list[str]:
    both = [Followed(tool, words, typed) for tool in pair]
    try:
        return alike(*both)
    finally:
        for one in both:
            one.end()


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
                assert (holder.wait(FIRST_S), waiter.wait(FIRST_S)) == (0, 0)


def test_a_listener_sees_each_leader(pair: Pair) -> None:
    for form in ("simple", "json", "fields"):
        listeners = [Followed(tool, f"elect -l vote -w {form}") for tool in pair]
        try:
            told = [""]
            for name in ("one", "two"):
                leaders = [Followed(tool, f"elect vote {name}") for tool in pair]
                try:
                    before, told = told, alike(*listeners)
                    assert len(told) > len(before), "nobody was told of the next leader"
                finally:
                    ends = [one.end() for one in leaders]
                assert ends == [0, 0]
        finally:
            ends = [one.end() for one in listeners]
        assert ends == [0, 0]


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
