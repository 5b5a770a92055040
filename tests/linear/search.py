"""Whether what happened to one key could have happened one operation after the other: the search of Wing and Gong, with
Lowe's memory of configurations that were tried. It knows values alone, nothing of revisions.

An operation takes effect once, at some moment between its start and its end. One whose outcome is unknown may take
effect at any moment after its start, or never.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tests.linear.history import Operation

MAX_STEPS = 3_000_000
"""Configurations that are tried before the search gives up."""


@dataclass(frozen=True)
class Verdict:
    """`linearizable` is None when the search gave up. `stuck` are the operations that no order could get beyond."""

    linearizable: bool | None
    stuck: tuple[Operation, ...] = ()


def check(operations: Sequence[Operation], max_steps: int = MAX_STEPS) -> Verdict:
    """Search for an order of the operations on one key, which begins without a value."""
    certain, perhaps = prepare(operations)
    history, count = certain + perhaps, len(certain)
    needed = (1 << count) - 1
    tried: set[tuple[int, str | None]] = set()
    done, state = 0, None
    longest, farthest = -1, 0
    path: list[tuple[int, str | None]] = []
    choices = [_candidates(history, count, done)]
    steps = 0
    while needed & ~done:
        if choices[-1]:
            steps += 1
            if steps > max_steps:
                return Verdict(None)
            at = choices[-1].pop()
            after, possible = step(history[at][0], state)
            reached = (done | 1 << at, after)
            if not possible or reached in tried:
                continue
            tried.add(reached)
            path.append((done, state))
            done, state = reached
            if len(path) > longest:
                longest, farthest = len(path), done
            choices.append(_candidates(history, count, done))
        elif path:
            choices.pop()
            done, state = path.pop()
        else:
            return Verdict(False, tuple(history[at][0] for at in reversed(_candidates(history, count, farthest))))
    return Verdict(True)


def step(one: Operation, state: str | None) -> tuple[str | None, bool]:
    """The value after an operation took effect on this one, and whether it can have answered what it did."""
    known = one.outcome == "ok"
    before = one.seen.value if one.seen is not None else None
    match one.kind:
        case "put":
            return one.value, not known or before == state
        case "delete":
            return None, not known or (before == state and one.changed == (state is not None))
        case "swap":
            holds = state == one.expect
            right = one.changed == holds and (holds or before == state)
            return (one.value if holds else state), not known or right
        case _:
            return state, before == state


Bounded = tuple[Operation, float]
"""An operation and until when it took effect."""


def prepare(operations: Sequence[Operation]) -> tuple[list[Bounded], list[Bounded]]:
    """The operations that matter, by their start: those that took effect, and those that perhaps did.

    What failed for certain and reads without an answer say nothing. A write of unknown outcome whose value was seen
    took effect before who saw it was answered. One whose value nobody saw or asked for can be left out: every operation
    of known outcome says what it found, so none took effect on that value.
    """
    seen: dict[str | None, int] = {}
    asked = set()
    for one in operations:
        values = [one.seen.value] if one.seen is not None and one.kind != "stale" else []
        if one.kind == "swap" and one.outcome != "failed":
            asked.add(one.expect)
            values += [one.expect] if one.changed and one.expect is not None else []
        for value in values:
            seen[value] = min(one.end, seen.get(value, one.end))
    certain: list[Bounded] = []
    perhaps: list[Bounded] = []
    for one in sorted(operations, key=lambda one: one.start):
        if one.kind == "stale" or one.outcome == "failed":
            continue
        if one.outcome == "ok":
            certain.append((one, one.end))
        elif one.kind in ("put", "swap") and one.value in seen:
            certain.append((one, seen[one.value]))
        elif one.kind == "delete" or (one.writes and one.value in asked):
            perhaps.append((one, math.inf))
    return certain, perhaps


def _candidates(history: Sequence[Bounded], certain: int, done: int) -> list[int]:
    """What may take effect next: whatever began before any of the others ended. The likeliest is last: what is known to
    have happened before what is not, and what ended first."""
    bound = math.inf
    found = []
    first = (~done & (done + 1)).bit_length() - 1
    for at in range(first, certain):
        one, end = history[at]
        if one.start > bound:
            break
        if not done >> at & 1:
            found.append(at)
            bound = min(bound, end)
    found += [at for at in range(certain, len(history)) if not done >> at & 1]
    found = [at for at in found if history[at][0].start <= bound]
    found.sort(key=lambda at: (-history[at][1], -history[at][0].start))
    return found
