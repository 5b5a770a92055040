"""Every scenario, at the newest etcd that there is (or the one that $ETCD names) and at ours."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks import peers
from tests.conformance.etcd.run import answer_of, describe
from tests.conformance.etcd.scenarios import SCENARIOS
from tests.conformance.etcd.side import FOREIGN, STUCK, Side, version
from tests.conformance.etcd.steps import Scenario
from tests.conformance.members import etcdctl_path

pytestmark = pytest.mark.skipif(
    etcdctl_path() is None or not FOREIGN.is_file(), reason="etcdctl or the foreign client is not here: run make setup"
)
NOTIFY = "watch-progress-notify-interval=2s"
CONTEXT_LINES = 4
Pair = tuple[Side, Side]


def reference() -> peers.Peer:
    """The etcd to compare with."""
    newest = None if os.environ.get("ETCD") else peers.newest()[0]
    found = newest or next((peer for peer in peers.find(with_newest=False)[0] if peer.name != "ours"), None)
    if found is None:
        pytest.fail("There is no etcd to compare with: run make setup, or name one with ETCD=/path.")
    return found


def pair_of(count: int, directory: Path, extra: Sequence[str] = ()) -> Iterator[Pair]:
    etcd = reference()
    flags = {"ours": f"--{NOTIFY}", etcd.name: f"--experimental-{NOTIFY}" if version(etcd) < (3, 6) else f"--{NOTIFY}"}
    with ExitStack() as stack:
        sides = []
        for peer in (etcd, peers.ours()):
            sides.append(Side(peer, directory / peer.name.split()[0], count, [flags[peer.name], *extra]))
            stack.callback(sides[-1].close)
            sides[-1].start()
        yield sides[0], sides[1]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    yield from pair_of(1, tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    yield from pair_of(3, tmp_path_factory.mktemp("three"))


def begin(pair: Pair) -> None:
    """Both sides empty and at the same revision."""
    base = max(side.empty() for side in pair) + 2
    for side in pair:
        side.align(base)
        side.learn(base)


def difference(scenario: Scenario, pair: Pair) -> str:
    """What differs, step by step; empty when nothing does."""
    if version(pair[0].peer) < scenario.since:
        pytest.skip(f"{pair[0].peer.name} answers otherwise than the newest does")
    begin(pair)
    steps = [step for step in scenario.steps if step.since <= version(pair[0].peer)]
    with ThreadPoolExecutor(len(pair)) as threads:
        theirs, ours = threads.map(lambda side: [answer_of(step, side) for step in steps], pair)
    found = []
    for number, (step, a, b) in enumerate(zip(steps, theirs, ours, strict=True), 1):
        head = f"{scenario.name}, step {number}: {describe(step)}"
        if STUCK in a:
            found.append("\n".join([f"{head}: the reference gives no answer", *pretty(a)]))
        elif a != b:
            found.append("\n".join([head, *compared(pair[0].peer.name, pretty(a), pretty(b))]))
    return "\n\n".join(found)


def compared(name: str, theirs: list[str], ours: list[str]) -> Iterator[str]:
    return difflib.unified_diff(theirs, ours, name, "ours", n=CONTEXT_LINES, lineterm="")


def pretty(answer: Any) -> list[str]:
    return json.dumps(answer, indent=1, sort_keys=True).splitlines()


def cases(members: int) -> list[Any]:
    return [pytest.param(each, id=each.name) for each in SCENARIOS if each.members == members]


@pytest.mark.parametrize("scenario", cases(1))
def test_one_member(scenario: Scenario, one: Pair) -> None:
    found = difference(scenario, one)
    assert not found, f"\n{found}"


@pytest.mark.parametrize("scenario", cases(3))
def test_three_members(scenario: Scenario, three: Pair) -> None:
    found = difference(scenario, three)
    assert not found, f"\n{found}"
