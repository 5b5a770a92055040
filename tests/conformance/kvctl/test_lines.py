"""Every command line of `lines`, by kvctl and by etcd's client: Debian's, and for what that lacks the newest one."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from benchmarks import peers
from tests.conformance.kvctl.tool import Line, Told, Tool, read
from tests.conformance.members import etcdctl_path

KVCTL = [sys.executable, "-m", "cli.kvctl.app"]
LINES = Path(__file__).with_name("lines")
TRIES = 2
Pair = tuple[Tool, Tool]
pytestmark = pytest.mark.skipif(etcdctl_path() is None, reason="etcdctl is not here: run make setup")


def pair_of(program: str, peer: peers.Peer, directory: Path, members: int) -> Iterator[Pair]:
    with ExitStack() as stack, ThreadPoolExecutor(2) as threads:
        tools = [Tool([program], peer, directory / "theirs", members), Tool(KVCTL, peer, directory / "ours", members)]
        for tool in tools:
            stack.callback(tool.close)
        list(threads.map(Tool.start, tools))
        yield tools[0], tools[1]


def difference(lines: list[Line], pair: Pair) -> str:
    """What differs, line by line; empty when nothing does."""
    found = []
    with ThreadPoolExecutor(2) as threads:
        for line in lines:
            theirs, ours = threads.map(lambda tool, line=line: tool.run(line), pair)
            if theirs != ours:
                told = difflib.unified_diff(_shown(theirs), _shown(ours), "etcdctl", "kvctl", lineterm="", n=2)
                found.append("\n".join([f"{line.words} <<< {line.stdin!r}" if line.stdin else line.words, *told]))
    return "\n\n".join(found)


def _shown(told: Told) -> list[str]:
    return [f"exit {told.code}", f"stderr: {told.error}", *told.out]


def groups(folder: str) -> list[str]:
    return sorted(path.stem for path in (LINES / folder).glob("*.txt"))


def check(path: Path, program: str, peer: peers.Peer, directory: Path, members: int = 1) -> None:
    """Both clients say the same, each of a new store. On a busy machine the time of one may be over: once more then."""
    for turn in range(TRIES):
        with contextmanager(pair_of)(program, peer, directory / str(turn), members) as pair:
            if not (found := difference(read(path), pair)):
                return
        print(found)
    raise AssertionError(f"\n{found}")


@pytest.mark.parametrize("group", groups("debian"))
def test_as_debians(group: str, tmp_path: Path) -> None:
    check(LINES / "debian" / f"{group}.txt", str(etcdctl_path()), peers.etcd(str(peers.DEBIAN)), tmp_path)


@pytest.mark.parametrize("group", groups("newest"))
def test_as_the_newest(group: str, tmp_path: Path) -> None:
    peer, client = peers.newest()[0], peers.newest_client()[0]
    if peer is None or client is None:
        pytest.skip("there is no Go to build the newest etcd with")
    check(LINES / "newest" / f"{group}.txt", client, peer, tmp_path)


@pytest.mark.parametrize("group", groups("three"))
def test_on_three_members(group: str, tmp_path: Path) -> None:
    check(LINES / "three" / f"{group}.txt", str(etcdctl_path()), peers.etcd(str(peers.DEBIAN)), tmp_path, 3)
