"""Read and write the cluster's records, one method a fact. Waiting and following are in `follow`; what the agent
reports goes through `reports`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from agent.interfaces import UnitState
from fleetd.registry import keys, records
from fleetd.registry.follow import list_prefix
from fleetd.registry.records import Desired, Machine, Placed, Presence, Wish
from fleetd.registry.texts import Texts
from kvstore.client import Client, prefix_end
from kvstore.model import MAX_TXN_OPS, Compare, KeyValue, Op, RangeResult

LOOKUPS = 10_000
"""Keys that are asked for one by one at most; above that ranges are."""
ATTEMPTS = 16
"""How often a change that lost a race against another one is tried again."""


@dataclass(frozen=True)
class PlacedState:
    """A unit's state as the machine that runs it reported it."""

    machine: str
    state: UnitState


def _placed(kv: KeyValue) -> Placed:
    machine, unit = keys.split(kv.key)[1]
    return Placed.read(machine, unit, kv.key, kv.value, kv.mod_revision)


def _state(kv: KeyValue) -> PlacedState:
    machine, unit = keys.split(kv.key)[1]
    return PlacedState(machine, records.read_state(unit, kv.key, kv.value))


class Registry:
    """The records of one cluster, as seen and written by one machine."""

    def __init__(self, client: Client, machine_id: str) -> None:
        self.client = client
        self.machine_id = machine_id
        self._texts = Texts()

    # Units

    async def unit(self, name: str) -> Wish | None:
        """The wish for a unit, or None."""
        found = await self.client.get(keys.unit(name))
        return Wish.read(name, keys.unit(name), found.kvs[0].value, found.kvs[0].mod_revision) if found.kvs else None

    async def units(self) -> list[Wish]:
        """All wishes, by name."""
        listed = await list_prefix(self.client, keys.UNITS)
        return [Wish.read(keys.split(kv.key)[1][0], kv.key, kv.value, kv.mod_revision) for kv in listed.kvs]

    async def units_after(self, name: str, limit: int) -> list[Wish]:
        """The first wishes whose names come after this one."""
        start = keys.unit(name) + b"\0" if name else keys.UNITS
        found = await self.client.get(start, range_end=prefix_end(keys.UNITS), limit=limit)
        return [Wish.read(keys.split(kv.key)[1][0], kv.key, kv.value, kv.mod_revision) for kv in found.kvs]

    async def file(self, digest: str) -> str | None:
        """The text of a unit file, or None."""
        if (known := self._texts.get(digest)) is not None:
            return known
        found = await self.client.get(keys.file(digest), serializable=True)
        if not found.kvs:
            found = await self.client.get(keys.file(digest))
        if not found.kvs:
            return None
        return self._texts.keep(digest, str(keys.decode(keys.file(digest), found.kvs[0].value)["text"]))

    async def create_unit(self, name: str, text: str, desired: Desired) -> bool:
        """Store a new unit with its file; False when the name is taken."""
        digest = keys.file_hash(text)
        wish = Wish(name, digest, desired)
        done = await self.client.txn(
            [Compare.create(keys.unit(name), "=", 0)],
            [Op.put(keys.file(digest), keys.encode(text=text)), Op.put(keys.unit(name), wish.value())],
        )
        return done.succeeded

    async def replace_unit(self, name: str, text: str, desired: Desired) -> None:
        """Store a unit with its file over whatever is there."""
        digest = keys.file_hash(text)
        await self.client.txn(
            [],
            [
                Op.put(keys.file(digest), keys.encode(text=text)),
                Op.put(keys.unit(name), Wish(name, digest, desired).value()),
            ],
        )

    async def set_desired(self, name: str, desired: Desired) -> Wish | None:
        """Change what is wanted of a unit; None when there is no such unit."""
        key = keys.unit(name)
        for _ in range(ATTEMPTS):
            wish = await self.unit(name)
            if wish is None or wish.desired == desired:
                return wish
            changed = replace(wish, desired=desired)
            done = await self.client.txn([Compare.mod(key, "=", wish.revision)], [Op.put(key, changed.value())])
            if done.succeeded:
                return replace(changed, revision=done.header.revision)
        raise keys.RegistryError(f"{name} is being changed by others all the time; try again.")

    async def destroy_unit(self, name: str) -> bool:
        """Forget a unit; False when there is none."""
        return (await self.client.delete(keys.unit(name))).deleted > 0

    async def reason(self, name: str) -> str:
        """Why a unit could not be placed; empty when it could."""
        found = await self.client.get(keys.reason(name))
        return str(keys.decode(keys.reason(name), found.kvs[0].value)["reason"]) if found.kvs else ""

    async def placements(self) -> list[Placed]:
        """Every placement, of every machine."""
        return [_placed(kv) for kv in (await list_prefix(self.client, keys.PLACEMENTS)).kvs]

    async def machine_ids(self) -> list[str]:
        """The ids of every machine that was ever registered, in order."""
        listed = await list_prefix(self.client, keys.MACHINES, keys_only=True)
        return [keys.split(kv.key)[1][0] for kv in listed.kvs]

    async def placements_of(self, units: Collection[str]) -> list[Placed]:
        """Where these units are placed; read as `_of` does."""
        return [_placed(kv) for kv in await self._of(keys.placement, units)]

    async def placements_at(self, places: Sequence[tuple[str, str]]) -> list[Placed]:
        """Those of these placements (machine, unit) that are there."""
        found = await self._get([Op.get(keys.placement(machine, unit)) for machine, unit in places])
        return [_placed(kv) for kv in found]

    async def states_of(self, units: Collection[str]) -> list[PlacedState]:
        """What machines report of these units; read as `_of` does."""
        return [_state(kv) for kv in await self._of(keys.state, units)]

    async def states_after(self, place: str, limit: int, machine: str | None = None) -> list[PlacedState]:
        """The first states whose `machine/unit` comes after this one, of all machines or of one."""
        prefix = keys.STATES if machine is None else keys.state(machine, "")
        start = max(prefix, keys.STATES + place.encode() + b"\0") if place else prefix
        found = await self.client.get(start, range_end=prefix_end(prefix), limit=limit)
        return [_state(kv) for kv in found.kvs]

    async def _of(self, key: Callable[[str, str], bytes], units: Collection[str]) -> list[KeyValue]:
        """What is recorded of these units for any machine. Where each of them on each machine would be too many keys to
        ask for, each machine is asked for the range of them: for a page of units that is little more."""
        machines = await self.machine_ids()
        if len(units) * len(machines) <= LOOKUPS:
            return await self._get([Op.get(key(machine, unit)) for unit in units for machine in machines])
        first, last = min(units), max(units)
        found = await self._get([Op.get(key(one, first), range_end=key(one, last) + b"\0") for one in machines])
        return [kv for kv in found if keys.split(kv.key)[1][1] in units]

    async def _get(self, wanted: Sequence[Op]) -> list[KeyValue]:
        """What these reads find, in order."""
        found: list[KeyValue] = []
        for start in range(0, len(wanted), MAX_TXN_OPS):
            done = await self.client.txn([], wanted[start : start + MAX_TXN_OPS])
            for answer in done.responses:
                if isinstance(answer, RangeResult):
                    found.extend(answer.kvs)
        return found

    async def states(self, machine: str | None = None) -> list[PlacedState]:
        """What machines report of their units."""
        prefix = keys.STATES if machine is None else keys.state(machine, "")
        return [_state(kv) for kv in (await list_prefix(self.client, prefix)).kvs]

    # Machines

    async def machines(self) -> list[Machine]:
        """Every machine that was ever registered, by id."""
        listed = await list_prefix(self.client, keys.MACHINES)
        return [Machine.read(keys.split(kv.key)[1][0], kv.key, kv.value) for kv in listed.kvs]

    async def presences(self) -> dict[str, Presence]:
        """The machines that live now."""
        listed = await list_prefix(self.client, keys.PRESENCE)
        found = [Presence.read(keys.split(kv.key)[1][0], kv.key, kv.value, kv.lease) for kv in listed.kvs]
        return {presence.machine: presence for presence in found}

    async def presence(self, machine: str) -> Presence | None:
        """A machine's presence, or None when it has none now."""
        key = keys.presence(machine)
        found = await self.client.get(key)
        return Presence.read(machine, key, found.kvs[0].value, found.kvs[0].lease) if found.kvs else None

    async def register_machine(self, machine: Machine) -> None:
        """Write what is known of a machine, durably."""
        await self.client.put(keys.machine(machine.id), machine.value())

    async def announce(self, boot: str, address: str, lease: int) -> None:
        """Say that this machine lives, for as long as the lease does."""
        record = Presence(self.machine_id, boot, address)
        await self.client.put(keys.presence(self.machine_id), record.value(), lease=lease)

    # Engine

    async def engine_leader(self) -> str:
        """The machine whose engine leads, or ''."""
        found = await self.client.get(keys.LEADER)
        return str(keys.decode(keys.LEADER, found.kvs[0].value).get("machine", "")) if found.kvs else ""

    async def alarm(self) -> str:
        """The engine's alarm, or ''."""
        found = await self.client.get(keys.ALARM)
        return str(keys.decode(keys.ALARM, found.kvs[0].value).get("text", "")) if found.kvs else ""
