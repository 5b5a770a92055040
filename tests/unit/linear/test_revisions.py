"""The check against revisions: a right history passes, and each way to bend it is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.linear.history import Death, History, Version, load, save
from tests.linear.judge import judge
from tests.linear.revisions import check
from tests.unit.linear.made import Store, lost

STORE = Store()
OPERATIONS = [
    STORE.apply("put", 0, 10, "a"),
    STORE.apply("get", 20, 30),
    STORE.apply("swap", 40, 50, "b", "a"),
    STORE.apply("swap", 60, 70, "c", "a"),
    STORE.apply("stale", 80, 90),
    STORE.apply("delete", 100, 110),
    STORE.apply("delete", 120, 130),
    STORE.apply("get", 140, 150),
    STORE.apply("put", 160, 170, "d"),
    STORE.apply("stale", 180, 190),
]
RIGHT = STORE.history(OPERATIONS)
PUT, GET, SWAP, REFUSED, STALE, DELETE, NOTHING, ABSENT, LAST, LATER = range(10)
OLD = Version("a", 2, 2, 1)


def bent(at: int, **fields: object) -> History:
    """The history with one operation answered otherwise."""
    operations = list(RIGHT.operations)
    operations[at] = replace(operations[at], **fields)  # type: ignore[arg-type]
    return replace(RIGHT, operations=tuple(operations))


def without(at: int) -> History:
    """The history with one event lost on its way to a watcher."""
    log = RIGHT.logs["m1"]
    return replace(RIGHT, watched={"w": log[:at] + log[at + 1 :]})


def lost_write() -> History:
    """The history when no member has the last write any more."""
    log = RIGHT.logs["m1"][:-1]
    operations = RIGHT.operations[:-1]
    return History(operations, {"w": log}, {"m1": log, "m2": log}, (), RIGHT.until)


WRONG: dict[str, tuple[Callable[[], History], str]] = {
    "an acknowledged write is gone": (lost_write, "was acknowledged"),
    "a write has another's revision": (lambda: bent(PUT, revision=3), "was acknowledged"),
    "a failed write is there": (lambda: bent(PUT, outcome="failed"), "did not happen"),
    "a value that nobody wrote": (lambda: replace(RIGHT, operations=RIGHT.operations[1:]), "which nobody wrote"),
    "a deletion that nobody asked for": (lambda: bent(DELETE, outcome="failed"), "that nobody was told of"),
    "a read of another revision's value": (lambda: bent(ABSENT, seen=OLD), "and the state was None"),
    "a read of an old revision": (lambda: bent(ABSENT, revision=2, seen=OLD), "began after the answer"),
    "a swap that should have been refused": (lambda: bent(SWAP, expect="x"), "and the state was"),
    "a swap that was refused on what it asked for": (lambda: bent(REFUSED, expect="b"), "and the state was"),
    "a deletion of nothing that says it did": (lambda: bent(NOTHING, changed=True), "and the state was"),
    "a serializable read that mixes revisions": (lambda: bent(STALE, seen=OLD), "and the state was"),
    "serializable reads that go back": (lambda: bent(LATER, revision=2, seen=OLD), "went back behind"),
    "an event that is lost": (lambda: without(1), "watcher w: event 1"),
    "the last event lost": (lambda: without(len(RIGHT.logs["m1"]) - 1), "is None instead of"),
    "an event twice": (lambda: replace(RIGHT, watched={"w": RIGHT.logs["m1"][:2] + RIGHT.logs["m1"][1:]}), "event 2"),
    "events out of order": (lambda: replace(RIGHT, watched={"w": RIGHT.logs["m1"][::-1]}), "event 0"),
    "a member that has something else": (
        lambda: replace(RIGHT, logs={**RIGHT.logs, "m2": RIGHT.logs["m1"][:-1]}),
        "m2 has 3 changes, another member 4",
    ),
    "a revision that is nothing": (
        lambda: replace(RIGHT, logs={"m1": RIGHT.logs["m1"][:1] + RIGHT.logs["m1"][2:]}),
        "comes after revision 2",
    ),
    "a value written twice": (
        lambda: replace(RIGHT, logs={"m1": (*RIGHT.logs["m1"], replace(RIGHT.logs["m1"][0], revision=9))}),
        "and again at 9",
    ),
}


def test_a_right_history_passes() -> None:
    assert check(RIGHT) == []
    assert str(judge(RIGHT)) == "linearizable"


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_history_is_found(name: str) -> None:
    made, sentence = WRONG[name]
    found = check(made())
    assert any(sentence in one for one in found), found


def test_an_unknown_write_may_be_there_or_not() -> None:
    assert check(bent(PUT, outcome="unknown")) == []
    never = lost(replace(OPERATIONS[PUT], value="never"))
    assert check(replace(RIGHT, operations=(*RIGHT.operations, never))) == []


def test_an_unknown_write_does_not_happen_before_it_began() -> None:
    assert any("began after the answer" in one for one in check(bent(PUT, outcome="unknown", start=35)))


def test_a_member_that_was_killed_may_go_back() -> None:
    history = bent(LATER, revision=2, seen=OLD)
    assert check(replace(history, deaths=(Death("m1", 150),))) == []
    assert check(replace(history, deaths=(Death("m2", 150),))) != []


def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    history = replace(RIGHT, deaths=(Death("m1", 7),))
    save(history, tmp_path / "history")
    assert load(tmp_path / "history") == history


def test_both_checks_find_an_old_read() -> None:
    told = str(judge(bent(ABSENT, revision=2, seen=OLD)))
    assert "is not linearizable" in told and "began after the answer" in told
