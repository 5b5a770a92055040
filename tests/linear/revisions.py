"""Whether what clients saw agrees with the store's own history: its revisions. In time linear in what happened.

Each write has a revision, each answer names the one of the state that it was made from, and members' logs say what
every revision was. So that order is known and need not be searched for: it must agree with the order in time, and every
answer with the state at its revision.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.linear.history import Change, History, Operation, Version

MAX_TOLD = 20


@dataclass(frozen=True)
class Timeline:
    """What every revision was: `changes[key]` in order."""

    changes: dict[str, list[Change]]
    writers: dict[str, int]
    """By value, the revision that has it."""

    def at(self, key: str, revision: int) -> Version | None:
        """The key at a revision."""
        rows = self.changes.get(key, [])
        found = bisect_right(rows, revision, key=lambda change: change.revision)
        return rows[found - 1].version if found else None

    def change(self, key: str, revision: int) -> Change | None:
        """What a revision did to a key."""
        rows = self.changes.get(key, [])
        found = bisect_left(rows, revision, key=lambda change: change.revision)
        return rows[found] if found < len(rows) and rows[found].revision == revision else None


def check(history: History) -> list[str]:
    """Everything that is wrong, as sentences; the first few of each kind."""
    whole = next(iter(history.logs.values()), ())
    timeline = _timeline(whole)
    kinds = (
        _logs(history, whole),
        _writes(history, timeline),
        _answers(history, timeline),
        _order(history, timeline),
        _stale(history),
        _watches(history, whole),
    )
    return [sentence for kind in kinds for _, sentence in zip(range(MAX_TOLD), kind, strict=False)]


def _timeline(log: Iterable[Change]) -> Timeline:
    changes: dict[str, list[Change]] = {}
    writers = {}
    for one in log:
        changes.setdefault(one.key, []).append(one)
        if one.version is not None:
            writers[one.version.value] = one.revision
    return Timeline(changes, writers)


def _logs(history: History, whole: tuple[Change, ...]) -> Iterator[str]:
    """All members have the same changes, in order, each value once, with versions that count on."""
    for member, log in history.logs.items():
        for ours, theirs in zip(log, whole, strict=False):
            if ours != theirs:
                yield f"{member} has {ours}, another member {theirs}"
                break
        if len(log) != len(whole):
            yield f"{member} has {len(log)} changes, another member {len(whole)}"
    values: dict[str, int] = {}
    before: dict[str, Version | None] = {}
    last = 0
    for one in whole:
        # Clients of a run write one change a revision, and nobody else writes.
        if last and one.revision != last + 1:
            yield f"{one} comes after revision {last}"
        last, old = one.revision, before.get(one.key)
        if one.version is None:
            if old is None:
                yield f"{one} deletes what was not there"
        else:
            now = one.version
            if values.setdefault(now.value, one.revision) != one.revision:
                yield f"{now.value} was written at revision {values[now.value]} and again at {one.revision}"
            expected = (old.created, old.version + 1) if old is not None else (one.revision, 1)
            if (now.created, now.version, now.modified) != (*expected, one.revision):
                yield f"{one} follows {old}"
        before[one.key] = one.version


def _writes(history: History, timeline: Timeline) -> Iterator[str]:
    """What was acknowledged is there; what failed is not; a deletion that is there was asked for."""
    deleted: set[tuple[str, int]] = set()
    perhaps: dict[str, int] = {}
    values = set()
    for one in history.operations:
        if not one.writes:
            continue
        values.add(one.value)
        if one.outcome == "ok" and one.changed:
            change = timeline.change(one.key, one.revision)
            got = None if change is None or change.version is None else change.version.value
            if change is None or got != (None if one.kind == "delete" else one.value):
                yield f"{one} was acknowledged, and the revision is {change}"
            if one.kind == "delete":
                deleted.add((one.key, one.revision))
        elif one.outcome == "unknown":
            perhaps[one.key] = perhaps.get(one.key, 0) + (one.kind == "delete")
        elif one.kind != "delete" and one.value in timeline.writers:
            yield f"{one} did not happen, and is revision {timeline.writers[one.value]}"
    for value, revision in timeline.writers.items():
        if value not in values:
            yield f"revision {revision} has {value}, which nobody wrote"
    for key, changes in timeline.changes.items():
        unasked = sum(one.version is None and (key, one.revision) not in deleted for one in changes)
        if unasked > perhaps.get(key, 0):
            yield f"{key} was deleted {unasked} times that nobody was told of, asked for {perhaps.get(key, 0)} times"


def _answers(history: History, timeline: Timeline) -> Iterator[str]:
    """Every answer is that of the state at its revision; a write's, of the state before it."""
    for one in history.operations:
        if one.outcome != "ok":
            continue
        state = timeline.at(one.key, one.revision - (1 if one.changed else 0))
        value = None if state is None else state.value
        match one.kind:
            case "swap":
                right = (value == one.expect) == one.changed and (one.changed or state == one.seen)
            case "delete":
                right = state == one.seen and one.changed == (state is not None)
            case _:
                right = state == one.seen
        if not right:
            yield f"{one} was answered, and the state was {state}"


def _order(history: History, timeline: Timeline) -> Iterator[str]:
    """What begins after an answer has no older revision than that, and a write a newer one."""
    points: list[tuple[int, int, int, Operation]] = []
    for one in history.operations:
        if one.kind == "stale":
            continue
        revision = one.revision
        if one.outcome == "unknown" and one.kind in ("put", "swap"):
            revision = timeline.writers.get(one.value, 0)
        if not revision or one.outcome == "failed":
            continue
        points.append((one.start, 0, revision, one))
        if one.outcome == "ok":
            points.append((one.end, 1, revision, one))
    points.sort(key=lambda point: point[:2])
    latest: tuple[int, Operation | None] = (0, None)
    for _, ends, revision, one in points:
        if ends:
            latest = max(latest, (revision, one), key=lambda pair: pair[0])
            continue
        new = one.writes and (one.changed or one.outcome == "unknown")
        if revision < latest[0] or (new and revision == latest[0]):
            yield f"{one} has revision {revision}, and began after the answer to {latest[1]}"


def _stale(history: History) -> Iterator[str]:
    """Serializable reads of one client at one member never go back, unless the member was killed in between."""
    last: dict[tuple[int, str], Operation] = {}
    for one in sorted(history.operations, key=lambda one: one.start):
        if one.kind != "stale" or one.outcome != "ok":
            continue
        before = last.get((one.client, one.member))
        last[one.client, one.member] = one
        if before is None or before.revision <= one.revision:
            continue
        if not any(death.member == one.member and before.start <= death.at <= one.end for death in history.deaths):
            yield f"{one} went back behind {before}"


def _watches(history: History, whole: tuple[Change, ...]) -> Iterator[str]:
    """Every watcher was told of every change once, in order."""
    expected = tuple(one for one in whole if one.revision <= history.until)
    for watcher, told in history.watched.items():
        got = tuple(one for one in told if one.revision <= history.until)
        for at in range(max(len(got), len(expected))):
            have = got[at] if at < len(got) else None
            want = expected[at] if at < len(expected) else None
            if have != want:
                yield f"watcher {watcher}: event {at} is {have} instead of {want}"
                break
