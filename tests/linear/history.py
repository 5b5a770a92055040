"""What clients did and saw, as plain values, and as lines of JSON.

Keys and values are text. Times are CLOCK_MONOTONIC nanoseconds. Every value is written once, by one operation.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.linear.leases import Held

Kind = Literal["put", "get", "swap", "delete", "stale"]
"""`swap` is a transaction that puts `value` if the key has the value `expect`, and else reads it; `stale` is a
serializable read."""
Outcome = Literal["ok", "failed", "unknown"]
"""`failed` is certain: it did not and will not happen."""


@dataclass(frozen=True, slots=True)
class Version:
    """A key as it was at some revision."""

    value: str
    created: int
    modified: int
    version: int


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of one client."""

    client: int
    member: str
    kind: Kind
    key: str
    start: int
    end: int
    outcome: Outcome
    value: str = ""
    """What it writes."""
    expect: str | None = None
    """Of a swap: the value that it asks for; None is no key."""
    revision: int = 0
    """The answer's header: for a write that changed something its own, else that of the state that was read."""
    seen: Version | None = None
    """What was read: by a write the key before it."""
    changed: bool = False
    """Whether the answer says that the key was changed."""

    @property
    def writes(self) -> bool:
        """Whether it may change something."""
        return self.kind in ("put", "swap", "delete")


@dataclass(frozen=True, slots=True)
class Change:
    """An event of a watch; `version` is None for a deletion."""

    revision: int
    key: str
    version: Version | None


@dataclass(frozen=True, slots=True)
class Death:
    """A member was killed; what it had only in memory is gone."""

    member: str
    at: int


@dataclass(frozen=True)
class History:
    """A whole run. `logs` has, by watcher or member, the changes that it was told of."""

    operations: tuple[Operation, ...]
    watched: dict[str, tuple[Change, ...]]
    logs: dict[str, tuple[Change, ...]]
    deaths: tuple[Death, ...] = ()
    until: int = 0
    """The revision up to which every watcher and log must be complete."""
    leases: tuple[Held, ...] = ()


def save(history: History, path: Path) -> None:
    """Write a history as one JSON object a line."""
    with path.open("w") as out:
        out.write(json.dumps({"until": history.until}) + "\n")
        for kind, rows in (
            ("operation", history.operations),
            ("death", history.deaths),
            ("lease", history.leases),
        ):
            out.writelines(json.dumps({kind: dataclasses.asdict(row)}) + "\n" for row in rows)
        for kind, tables in (("watched", history.watched), ("log", history.logs)):
            for who, changes in tables.items():
                line = {kind: who, "changes": [dataclasses.asdict(change) for change in changes]}
                out.write(json.dumps(line) + "\n")


def load(path: Path) -> History:
    """Read what `save` wrote."""
    operations, deaths, leases = [], [], []
    watched: dict[str, tuple[Change, ...]] = {}
    logs: dict[str, tuple[Change, ...]] = {}
    until = 0
    for line in path.read_text().splitlines():
        row = json.loads(line)
        if "operation" in row:
            fields = row["operation"]
            operations.append(Operation(**{**fields, "seen": _version(fields["seen"])}))
        elif "death" in row:
            deaths.append(Death(**row["death"]))
        elif "lease" in row:
            leases.append(Held(**row["lease"]))
        elif "changes" in row:
            changes = tuple(Change(one["revision"], one["key"], _version(one["version"])) for one in row["changes"])
            (watched if "watched" in row else logs)[row.get("watched") or row["log"]] = changes
        else:
            until = row["until"]
    return History(tuple(operations), watched, logs, tuple(deaths), until, tuple(leases))


def _version(fields: dict[str, object] | None) -> Version | None:
    return None if fields is None else Version(**fields)  # type: ignore[arg-type]


def by_key(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    """Operations by the key that they are on."""
    found: dict[str, list[Operation]] = {}
    for one in operations:
        found.setdefault(one.key, []).append(one)
    return found
