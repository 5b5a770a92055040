"""What a machine remembers of its units: saved before it acts, read when it starts again.

One JSON file a unit, and the last placements. A file appears whole or not at all (written aside, synced, renamed). What
a record means is `adopt`'s and the supervisor's affair.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from agent import durable
from agent.interfaces import Placement
from agent.units.life import Role, State
from agent.units.model import Phase

VERSION = 1


class RecordError(Exception):
    """A record can't be read or written; the text names the file and the reason."""


@dataclass(frozen=True)
class ProcessRecord:
    """One process, container or docker step of a unit."""

    slot: int
    role: Role
    phase: Phase
    index: int
    run_dir: str
    log_dir: str
    container: str = ""
    """Its id, once there is one; empty for a command."""


@dataclass(frozen=True)
class UnitRecord:
    """All that is to be known to carry on with a unit."""

    unit: str
    text: str
    epoch: int
    boot: str
    state: State = field(default_factory=State)
    processes: tuple[ProcessRecord, ...] = ()
    since: float = 0.0
    reason: str = ""
    """Why the last failure happened, in a sentence."""
    last_container: str = ""
    """The unnamed container that was left after the last run."""

    def process(self, slot: int) -> ProcessRecord | None:
        return next((one for one in self.processes if one.slot == slot), None)

    def without(self, slot: int) -> UnitRecord:
        return replace(self, processes=tuple(one for one in self.processes if one.slot != slot))


@dataclass
class Records:
    """The folder of records."""

    folder: Path
    _made: bool = field(default=False, repr=False)

    def save(self, record: UnitRecord) -> None:
        """Write a unit's record, durably."""
        self._write(self.folder / f"{record.unit}.json", asdict(record))

    def remove(self, unit: str) -> None:
        """Forget a unit; one without a record is no error."""
        with contextlib.suppress(FileNotFoundError):
            (self.folder / f"{unit}.json").unlink()
            durable.sync_folder(self.folder)

    def set_aside(self, unit: str) -> None:
        """Keep a record that can't be read out of the way of a new one, as `<unit>.unread`."""
        with contextlib.suppress(FileNotFoundError):
            (self.folder / f"{unit}.json").replace(self.folder / f"{unit}.unread")
            durable.sync_folder(self.folder)

    def load(self) -> tuple[dict[str, UnitRecord], dict[str, str]]:
        """Read all units; for what can't be read there is a sentence, and it is left where it is."""
        found: dict[str, UnitRecord] = {}
        complaints: dict[str, str] = {}
        for path in sorted(self.folder.glob("*.json")):
            if path.name == "placements.json":
                continue
            try:
                record = _unit(_read(path))
            except RecordError as error:
                complaints[path.name.removesuffix(".json")] = str(error)
                continue
            found[record.unit] = record
        return found, complaints

    def save_placements(self, placements: Mapping[str, Placement]) -> None:
        """Keep a copy of what the cluster wants here."""
        self._write(self.folder / "placements.json", {"placements": [asdict(one) for one in placements.values()]})

    def load_placements(self) -> dict[str, Placement]:
        """The last placements known here; none when there is no copy."""
        path = self.folder / "placements.json"
        if not path.exists():
            return {}
        try:
            return {one["unit"]: Placement(**one) for one in _read(path)["placements"]}
        except (KeyError, TypeError) as error:
            raise RecordError(f"{path} does not hold placements: {error!r}.") from error

    def _write(self, path: Path, content: dict[str, Any]) -> None:
        data = json.dumps({"version": VERSION, **content}, separators=(",", ":")).encode()
        try:
            if not self._made:
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._made = True
            durable.replace(path, data)
        except OSError as error:
            raise RecordError(f"{path} can't be written: {error.strerror}.") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} can't be read: {error}.") from error
    if not isinstance(content, dict) or not isinstance(content.get("version"), int):
        raise RecordError(f"{path} is no record of fleetd.")
    if content["version"] > VERSION:
        raise RecordError(
            f"{path} was written by a newer fleetd (version {content['version']}; this one knows {VERSION})."
        )
    del content["version"]
    return content


def _unit(content: dict[str, Any]) -> UnitRecord:
    try:
        state = dict(content.pop("state"))
        state["starts"] = tuple(state["starts"])
        processes = tuple(ProcessRecord(**one) for one in content.pop("processes"))
        return UnitRecord(**content, state=State(**state), processes=processes)
    except (KeyError, TypeError) as error:
        raise RecordError(f"The record of {content.get('unit', 'a unit')} is not complete: {error!r}.") from error
