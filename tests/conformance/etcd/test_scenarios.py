"""Every scenario, at ours and at each etcd that there is: the newest and Debian's, or the one that $ETCD names."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conformance.etcd.beside import NEEDS_CLIENTS, Beside, beside
from tests.conformance.etcd.run import answer_of, describe
from tests.conformance.etcd.scenarios import SCENARIOS
from tests.conformance.etcd.side import STUCK, Side, version
from tests.conformance.etcd.steps import Scenario, Step

pytestmark = NEEDS_CLIENTS
CONTEXT_LINES = 4
TRIES = 2


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beside]:
    yield from beside(1, tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beside]:
    yield from beside(3, tmp_path_factory.mktemp("three"))


def passes(scenario: Scenario, etcds: tuple[Side, ...]) -> list[tuple[list[Step], list[Side]]]:
    """What is done at which etcds: the same steps at once. An etcd that answers fewer of them as the newest does has a
    pass of its own, since a step that is left out changes what comes after it."""
    found: dict[tuple[int, ...], list[Side]] = {}
    for etcd in etcds:
        if (mine := version(etcd.peer)) >= scenario.since:
            numbers = tuple(number for number, step in enumerate(scenario.steps) if step.since <= mine)
            found.setdefault(numbers, []).append(etcd)
    return [([scenario.steps[number] for number in numbers], sides) for numbers, sides in found.items()]


def begin(sides: list[Side]) -> None:
    """All sides empty and at the same revision."""
    for side in sides:
        side.check()
    base = max(side.empty() for side in sides) + 2
    for side in sides:
        side.align(base)
        side.learn(base)


def difference(scenario: Scenario, beside: Beside) -> str:
    """What differs, step by step; empty when nothing does."""
    found: list[str] = []
    todo = passes(scenario, beside.etcds)
    if not todo:
        pytest.skip("each etcd that is here answers otherwise than the newest does")
    for steps, etcds in todo:
        begin([*etcds, beside.ours])
        with ThreadPoolExecutor(len(etcds) + 1) as threads:
            *theirs, ours = threads.map(
                lambda side, steps=steps: [answer_of(step, side) for step in steps], [*etcds, beside.ours]
            )
        for etcd, answers in zip(etcds, theirs, strict=True):
            found += differing(scenario.name, etcd.peer.name, steps, answers, ours)
    return "\n\n".join(found)


def differing(scenario: str, name: str, steps: list[Step], theirs: list[Any], ours: list[Any]) -> Iterator[str]:
    """Each step that an etcd answers otherwise than ours, or not at all."""
    for number, (step, a, b) in enumerate(zip(steps, theirs, ours, strict=True), 1):
        head = f"{scenario}, step {number}: {describe(step)}"
        if STUCK in a:
            yield "\n".join([f"{head}: {name} gives no answer", *pretty(a)])
        elif a != b:
            told = difflib.unified_diff(pretty(a), pretty(b), name, "ours", n=CONTEXT_LINES, lineterm="")
            yield "\n".join([head, *told])


def pretty(answer: Any) -> list[str]:
    return json.dumps(answer, indent=1, sort_keys=True).splitlines()


def cases(members: int) -> list[Any]:
    return [pytest.param(each, id=each.name) for each in SCENARIOS if each.members == members]


def check(scenario: Scenario, beside: Beside) -> None:
    """All sides answer alike. On a busy machine a lease may end or a leader change at one of them: once more then."""
    for _ in range(TRIES):
        if not (found := difference(scenario, beside)):
            return
        print(found)
    raise AssertionError(f"\n{found}")


@pytest.mark.parametrize("scenario", cases(1))
def test_one_member(scenario: Scenario, one: Beside) -> None:
    check(scenario, one)


@pytest.mark.parametrize("scenario", cases(3))
def test_three_members(scenario: Scenario, three: Beside) -> None:
    check(scenario, three)
