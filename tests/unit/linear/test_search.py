"""The search of an order: histories of one key that have one, and that have none."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

import pytest

from tests.linear.history import Kind, Operation, Version
from tests.linear.search import check, step
from tests.unit.linear.made import KEY, Store, lost


def op(kind: Kind, start: int, end: int, value: str = "", seen: str | None = None, **more: object) -> Operation:
    """An operation that was answered; revisions are none of the search's business."""
    version = None if seen is None else Version(seen, 1, 1, 1)
    made = Operation(0, "m1", kind, KEY, start, end, "ok", value, None, 0, version, kind == "put")
    return replace(made, **more)  # type: ignore[arg-type]


A = op("put", 0, 10, "a")
B = op("put", 20, 30, "b", "a")

LINEARIZABLE: dict[str, Sequence[Operation]] = {
    "nothing": [],
    "absent at first": [op("get", 0, 1)],
    "one after the other": [A, op("get", 11, 12, seen="a"), B, op("get", 31, 32, seen="b")],
    "a read beside a write sees the old": [A, B, op("get", 21, 29, seen="a")],
    "a read beside a write sees the new": [A, B, op("get", 21, 29, seen="b")],
    "two writes beside each other, the later first": [op("put", 0, 10, "a", "b"), op("put", 1, 9, "b")],
    "an unknown write that is seen": [lost(A), op("get", 20, 30, seen="a")],
    "an unknown write that happens late": [lost(A), op("get", 20, 30), op("get", 40, 50, seen="a")],
    "an unknown write that never happens": [lost(A), op("get", 20, 30), op("get", 90, 99)],
    "an unknown delete that happens late": [A, lost(op("delete", 1, 2)), B, op("get", 40, 50)],
    "an unknown delete between two writes": [A, lost(op("delete", 11, 12)), op("put", 20, 30, "b")],
    "a swap on a value that only an unknown swap can have made": [
        A,
        lost(op("swap", 11, 12, "b", expect="a")),
        op("swap", 20, 30, "c", expect="b", changed=True),
    ],
    "a chain of two unknown writes": [
        lost(op("put", 0, 1, "a")),
        lost(op("swap", 2, 3, "b", expect="a")),
        op("get", 9, 10, seen="b"),
    ],
    "a swap that was refused": [A, op("swap", 20, 30, "c", seen="a", expect="x")],
    "a serializable read of something old": [A, B, op("stale", 40, 50, seen="a")],
    "a write that failed": [A, op("put", 20, 30, "x", outcome="failed"), op("get", 40, 50, seen="a")],
}

NOT: dict[str, Sequence[Operation]] = {
    "a read of nothing after a write": [A, op("get", 11, 12)],
    "a read of the value before": [A, B, op("get", 31, 32, seen="a")],
    "two reads beside a write that go back": [A, B, op("get", 21, 24, seen="b"), op("get", 25, 29, seen="a")],
    "a read before the write": [op("get", 0, 1, seen="a"), op("put", 2, 3, "a")],
    "a failed write that is seen": [op("put", 0, 1, "x", outcome="failed"), op("get", 2, 3, seen="x")],
    "an unknown write that is seen and goes": [lost(A), op("get", 20, 30, seen="a"), op("get", 40, 50)],
    "an unknown write that is seen before it began": [op("get", 0, 1, seen="a"), lost(op("put", 2, 3, "a"))],
    "an unknown delete that happens twice": [
        A,
        lost(op("delete", 11, 12)),
        op("get", 13, 14),
        op("put", 20, 30, "b"),
        op("get", 40, 50),
    ],
    "two swaps from the same value": [
        A,
        op("swap", 20, 30, "c", expect="a", changed=True),
        op("swap", 20, 30, "d", expect="a", changed=True),
    ],
    "a swap that was refused on what it asked for": [A, op("swap", 20, 30, "c", seen="a", expect="a")],
    "a delete that found nothing": [A, op("delete", 20, 30, seen=None)],
    "a put that says another value was there": [A, op("put", 20, 30, "b", "x")],
}


@pytest.mark.parametrize("name", LINEARIZABLE)
def test_a_history_with_an_order(name: str) -> None:
    assert check(LINEARIZABLE[name]).linearizable is True


@pytest.mark.parametrize("name", NOT)
def test_a_history_without_one(name: str) -> None:
    verdict = check(NOT[name])
    assert verdict.linearizable is False
    assert set(verdict.stuck) <= set(NOT[name])


def test_who_is_stuck_is_told() -> None:
    late = op("get", 31, 32, seen="a")
    assert check([A, B, late]).stuck == (late,)


def test_a_search_that_gives_up_says_so() -> None:
    assert check(LINEARIZABLE["one after the other"], max_steps=2).linearizable is None


def random_history(seed: int, count: int) -> list[Operation]:
    """What a register answers to clients that overlap: each operation takes effect within its time."""
    rand, store, found = random.Random(seed), Store(), []
    for number in range(count):
        at = 10 * number
        kind: Kind = rand.choice(("put", "get", "swap", "delete"))
        now = None if store.now is None else store.now.value
        expect = now if rand.random() < 0.6 else "other"
        start, end = at - rand.randrange(60), at + 1 + rand.randrange(60)
        one = store.apply(kind, start, end, f"v{number}", expect)
        found.append(lost(one) if rand.random() < 0.15 else one)
        if rand.random() < 0.05:
            found.append(lost(replace(one, kind="put", value=f"x{number}")))
    return found


def simply(operations: Sequence[Operation]) -> bool:
    """The same question, asked of every order and every set of unknown operations: for very small histories."""
    known = [one for one in operations if one.outcome == "ok"]
    unknown = [one for one in operations if one.outcome == "unknown" and one.writes]
    for mask in range(1 << len(unknown)):
        chosen = known + [one for at, one in enumerate(unknown) if mask >> at & 1]
        if any(possible(order) for order in permutations(chosen)):
            return True
    return False


def possible(order: Sequence[Operation]) -> bool:
    """Whether this order agrees with the times and the answers."""
    state = None
    latest_start = -(10**9)
    for one in order:
        if one.outcome == "ok" and one.end < latest_start:
            return False
        latest_start = max(latest_start, one.start)
        state, right = step(one, state)
        if not right:
            return False
    return True


@pytest.mark.parametrize("seed", range(10))
def test_what_a_register_answers_has_an_order(seed: int) -> None:
    assert check(random_history(seed, 200)).linearizable is True


def test_small_histories_are_judged_as_by_trying_everything() -> None:
    verdicts = []
    for seed in range(150):
        rand = random.Random(seed)
        operations = random_history(seed, 5)
        if rand.random() < 0.7:
            at = rand.randrange(len(operations))
            seen = rand.choice([None, Version(f"v{rand.randrange(5)}", 1, 1, 1)])
            operations[at] = replace(operations[at], seen=seen)
        verdict = check(operations).linearizable
        assert verdict == simply(operations), (seed, operations)
        verdicts.append(verdict)
    assert verdicts.count(True) > 30 and verdicts.count(False) > 30
