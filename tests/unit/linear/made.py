"""Histories made by hand: operations on one key, with the times and revisions that a test gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tests.linear.history import Change, History, Kind, Operation, Version

KEY = "k"


class Store:
    """A register that answers as the store would, one operation after the other; a test bends what it answers."""

    def __init__(self) -> None:
        self.revision = 1
        self.now: Version | None = None
        self.log: list[Change] = []

    def apply(
        self, kind: Kind, start: int, end: int, value: str = "", expect: str | None = None, client: int = 0
    ) -> Operation:
        """Carry an operation out; it took from `start` to `end`."""
        seen, found = self.now, None if self.now is None else self.now.value
        one = Operation(client, "m1", kind, KEY, start, end, "ok", value, expect, self.revision, seen)
        changed = {"put": True, "delete": seen is not None, "swap": found == expect}.get(kind, False)
        if not changed:
            return one
        self.revision += 1
        if kind == "delete":
            self.now = None
        else:
            created, version = (seen.created, seen.version + 1) if seen else (self.revision, 1)
            self.now = Version(value, created, self.revision, version)
        self.log.append(Change(self.revision, KEY, self.now))
        seen = None if kind == "swap" else seen
        return replace(one, revision=self.revision, changed=True, seen=seen)

    def history(self, operations: Sequence[Operation]) -> History:
        """These operations, beside logs and watchers that are whole."""
        log = tuple(self.log)
        return History(tuple(operations), {"w": log}, {"m1": log, "m2": log}, (), self.revision)


def lost(one: Operation) -> Operation:
    """The same operation when its answer never came."""
    return replace(one, outcome="unknown", revision=0, seen=None, changed=False)
