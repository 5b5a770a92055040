"""The cluster's records in memory, kept up by each change. It says what a change touches; it decides nothing."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from agent.units.errors import UnitError
from agent.units.model import XFleet
from agent.units.spec import parse_unit
from fleetd.registry import keys, records
from fleetd.registry.keys import RegistryError
from fleetd.registry.records import RUNNING, Machine, Placed, Presence, Return, Wish
from fleetd.scheduler.indices import Indices
from kvstore.model import Event, KeyValue

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Spec:
    """What the engine needs of a unit file; `error` is a sentence when the file can't be read."""

    fleet: XFleet
    stop_timeout: float = 0.0
    error: str = ""

    @property
    def patience(self) -> float:
        """Seconds that a lost machine is waited for."""
        after = self.fleet.reschedule_after or 0.0
        if self.fleet.stop_when_isolated is None:
            return after
        return max(after, self.fleet.stop_when_isolated + self.stop_timeout)


@dataclass
class Touched:
    """What changes asked to be looked at again."""

    units: dict[str, None] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    back: list[str] = field(default_factory=list)
    room: bool = False
    """A machine came or changed, or a placement went: units that found no machine may find one now."""


class Snapshot:
    """All that the engine goes by."""

    def __init__(self) -> None:
        self.wishes: dict[str, Wish] = {}
        self.placements: dict[str, dict[str, Placed]] = {}
        self.by_machine: dict[str, set[str]] = {}
        self.present: dict[str, Presence] = {}
        self.machines: dict[str, Machine] = {}
        self.running: dict[str, set[str]] = {}
        self.reasons: dict[str, str] = {}
        self.returns: dict[str, Return] = {}
        self.alarm = False
        self.indices = Indices()
        self.touched = Touched()
        self.files: dict[str, int] = {}
        """Unit files in the store, with their mod revisions."""
        self.unread: set[bytes] = set()
        """Keys of wishes and placements that can't be read: nobody can say which files they name."""
        self._files: dict[str, str] = {}
        self._specs: dict[tuple[str, str], Spec] = {}

    @property
    def holders(self) -> int:
        """How many machines hold a presence or a placement."""
        return len(self.present.keys() | {machine for machine, units in self.by_machine.items() if units})

    def take(self) -> Touched:
        """Hand over what was touched since the last call."""
        touched, self.touched = self.touched, Touched()
        return touched

    def load(self, kvs: tuple[KeyValue, ...]) -> None:
        """Fill an empty snapshot from a listing. A machine that holds placements but no presence counts as lost."""
        for kv in sorted(kvs, key=lambda kv: not kv.key.startswith((keys.FILES, keys.UNITS, keys.MACHINES))):
            self._put(kv)
        self.touched.lost = [m for m, units in self.by_machine.items() if units and m not in self.present]
        for unit in (*self.wishes, *self.placements, *self.reasons):
            self.touched.units[unit] = None

    def apply(self, event: Event) -> None:
        """Take in one change. A record that can't be read is logged and left out."""
        if event.type == "put":
            self._put(event.kv)
        else:
            self._delete(event.kv.key)

    def spec(self, wish: Wish) -> Spec:
        """The unit's file as the engine reads it, parsed once."""
        cached = self._specs.get((wish.name, wish.file))
        if cached is not None:
            return cached
        text = self._files.get(wish.file)
        if text is None:
            return Spec(XFleet(), error=f"The file {wish.file[:12]} of {wish.name} is not in the store.")
        try:
            unit = parse_unit(wish.name, text)
            spec = Spec(unit.fleet, unit.service.timeout_stop if unit.service is not None else 0.0)
        except UnitError as error:
            spec = Spec(XFleet(), error=f"The unit file can't be read: {error}")
        self._specs[(wish.name, wish.file)] = spec
        return spec

    def _put(self, kv: KeyValue) -> None:
        kind, names = keys.split(kv.key)
        self.unread.discard(kv.key)
        try:
            match kind, names:
                case "files", (digest,):
                    self.files[digest] = kv.mod_revision
                    self._files[digest] = str(keys.decode(kv.key, kv.value)["text"])
                case "units", (unit,):
                    self._wish(Wish.read(unit, kv.key, kv.value, kv.mod_revision))
                case "placements", (machine, unit):
                    self.place(Placed.read(machine, unit, kv.key, kv.value, kv.mod_revision))
                    self.touched.units[unit] = None
                case "states", (machine, unit):
                    state = records.read_state(unit, kv.key, kv.value)
                    self._ran(machine, unit, state.active in RUNNING)
                case "presence", (machine,):
                    self._came(Presence.read(machine, kv.key, kv.value, kv.lease))
                case "machines", (machine,):
                    before = self.machines.get(machine)
                    known = self.machines[machine] = Machine.read(machine, kv.key, kv.value)
                    if machine in self.present and (before is None or before.metadata != known.metadata):
                        self._node(machine)
                        self.touched.units |= dict.fromkeys(self.by_machine.get(machine, ()))
                case "returns", (machine,):
                    self.returns[machine] = Return.read(machine, kv.key, kv.value)
                case "reasons", (unit,):
                    self.reasons[unit] = str(keys.decode(kv.key, kv.value)["reason"])
                case "engine", ("alarm",):
                    self.alarm = True
        except (RegistryError, KeyError, ValueError, TypeError) as error:
            log.error("The record %s is left out: %s", kv.key.decode(errors="replace"), error)
            if kv.key.startswith((keys.UNITS, keys.PLACEMENTS)):
                self.unread.add(kv.key)

    def _delete(self, key: bytes) -> None:
        self.unread.discard(key)
        match keys.split(key):
            case "units", (unit,):
                wish = self.wishes.pop(unit, None)
                if wish is not None:
                    self._specs.pop((unit, wish.file), None)
                self.touched.units[unit] = None
            case "placements", (machine, unit):
                self.unplace(unit, machine)
                self.touched.units[unit] = None
            case "states", (machine, unit):
                self._ran(machine, unit, False)
            case "presence", (machine,):
                if self.present.pop(machine, None) is not None:
                    self.indices.remove_node(machine)
                    self.touched.lost.append(machine)
            case "machines", (machine,):
                self.machines.pop(machine, None)
            case "files", (digest,):
                self.files.pop(digest, None)
                self._files.pop(digest, None)
            case "reasons", (unit,):
                self.reasons.pop(unit, None)
            case "returns", (machine,):
                self.returns.pop(machine, None)
            case "engine", ("alarm",):
                self.alarm = False
            case _:
                pass

    def _wish(self, wish: Wish) -> None:
        before = self.wishes.get(wish.name)
        if before is not None and before.file != wish.file:
            self._specs.pop((before.name, before.file), None)
        self.wishes[wish.name] = wish
        self.touched.units[wish.name] = None

    def _ran(self, machine: str, unit: str, running: bool) -> None:
        units = self.running.setdefault(machine, set())
        if running:
            units.add(unit)
        else:
            units.discard(unit)

    def _came(self, presence: Presence) -> None:
        new = presence.machine not in self.present
        self.present[presence.machine] = presence
        if new:
            self._node(presence.machine)
            self.touched.back.append(presence.machine)

    def _node(self, machine: str) -> None:
        known = self.machines.get(machine)
        new = machine not in self.indices.nodes
        self.indices.add_node(machine, known.metadata if known is not None else {})
        if new:
            for unit in self.by_machine.get(machine, ()):
                self._index(unit, machine)
        self.touched.room = True

    def _index(self, unit: str, machine: str) -> None:
        wish = self.wishes.get(unit)
        self.indices.add_unit(machine, unit, self.spec(wish).fleet if wish is not None else XFleet())

    def place(self, placed: Placed) -> None:
        """A unit is on a machine."""
        self.placements.setdefault(placed.unit, {})[placed.machine] = placed
        self.by_machine.setdefault(placed.machine, set()).add(placed.unit)
        self._index(placed.unit, placed.machine)

    def unplace(self, unit: str, machine: str) -> None:
        """A unit is no longer on a machine."""
        where = self.placements.get(unit, {})
        if where.pop(machine, None) is None:
            return
        if not where:
            del self.placements[unit]
        self.by_machine[machine].discard(unit)
        self.indices.remove_unit(machine, unit)
        self.touched.room = True
