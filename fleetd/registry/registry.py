"""Read and write the cluster's records, one method a fact. Waiting and following are in `follow`; what the agent
reports goes through `reports`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from agent.interfaces import UnitState
from fleetd.registry import keys, records
from fleetd.registry.follow import list_prefix
from fleetd.registry.records import Desired, Machine, Placed, Presence, Wish
from kvstore.client import Client, prefix_end
from kvstore.model import Compare, KeyValue, Op, RangeResult

FILES_KEPT = 1024
"""Unit files that are kept in memory."""
BATCH = 128
"""Operations in one transaction; etcd's own limit."""
LOOKUPS = 10_000
"""Keys that are asked for one by one at most; above that everything is listed."""
ATTEMPTS = 16
"""How often a change that lost a race against another one is tried again."""


@dataclass(frozen=True)
class PlacedState:
    """A unit's state as the machine that runs it reported it."""

    machine: str
    state: UnitState


class Registry:
    """The records of one cluster, as seen and written by one machine."""

    def __init__(self, client: Client, machine_id: str) -> None:
        self.client = client
        self.machine_id = machine_id
        self._files: OrderedDict[str, str] = OrderedDict()

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
        """The text of a unit file, or None. Files never change, so those seen last are kept in memory."""
        if (kept := self._files.get(digest)) is not None:
            return kept
        found = await self.client.get(keys.file(digest), serializable=True)
        if not found.kvs:
            found = await self.client.get(keys.file(digest))
        if not found.kvs:
            return None
        text = self._files[digest] = str(keys.decode(keys.file(digest), found.kvs[0].value)["text"])
        if len(self._files) > FILES_KEPT:
            self._files.popitem(last=False)
        return text

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

    async def reasons(self) -> Mapping[str, str]:
        """Why units could not be placed, by unit."""
        listed = await list_prefix(self.client, keys.REASONS)
        return {keys.split(kv.key)[1][0]: str(keys.decode(kv.key, kv.value)["reason"]) for kv in listed.kvs}

    async def reason(self, name: str) -> str:
        """Why a unit could not be placed; empty when it could."""
        found = await self.client.get(keys.reason(name))
        return str(keys.decode(keys.reason(name), found.kvs[0].value)["reason"]) if found.kvs else ""

    async def placements(self, machine: str | None = None) -> list[Placed]:
        """Every placement, of every machine or of one."""
        prefix = keys.PLACEMENTS if machine is None else keys.placements(machine)
        listed = await list_prefix(self.client, prefix)
        found = []
        for kv in listed.kvs:
            where, unit = keys.split(kv.key)[1]
            found.append(Placed.read(where, unit, kv.key, kv.value, kv.mod_revision))
        return found

    async def machine_ids(self) -> list[str]:
        """The ids of every machine that was ever registered, in order."""
        listed = await list_prefix(self.client, keys.MACHINES, keys_only=True)
        return [keys.split(kv.key)[1][0] for kv in listed.kvs]

    async def placements_of(self, units: Collection[str]) -> list[Placed]:
        """Where these units are placed. Others are not read unless there are so many machines that asking each would
        cost more."""
        machines = await self.machine_ids()
        if len(units) * len(machines) > LOOKUPS:
            return [item for item in await self.placements() if item.unit in units]
        found = []
        for kv in await self._get_each([keys.placement(machine, unit) for unit in units for machine in machines]):
            machine, unit = keys.split(kv.key)[1]
            found.append(Placed.read(machine, unit, kv.key, kv.value, kv.mod_revision))
        return found

    async def states_of(self, units: Collection[str]) -> list[PlacedState]:
        """What machines report of these units; read as `placements_of` does."""
        machines = await self.machine_ids()
        if len(units) * len(machines) > LOOKUPS:
            return [item for item in await self.states() if item.state.unit in units]
        found = []
        for kv in await self._get_each([keys.state(machine, unit) for unit in units for machine in machines]):
            machine, unit = keys.split(kv.key)[1]
            found.append(PlacedState(machine, records.read_state(unit, kv.key, kv.value)))
        return found

    async def _get_each(self, wanted: Sequence[bytes]) -> list[KeyValue]:
        """Those of these keys that are there, in order."""
        found: list[KeyValue] = []
        for start in range(0, len(wanted), BATCH):
            done = await self.client.txn([], [Op.get(key) for key in wanted[start : start + BATCH]])
            for answer in done.responses:
                if isinstance(answer, RangeResult):
                    found.extend(answer.kvs)
        return found

    async def states(self, machine: str | None = None) -> list[PlacedState]:
        """What machines report of their units."""
        prefix = keys.STATES if machine is None else keys.state(machine, "")
        listed = await list_prefix(self.client, prefix)
        found = []
        for kv in listed.kvs:
            where, unit = keys.split(kv.key)[1]
            found.append(PlacedState(where, records.read_state(unit, kv.key, kv.value)))
        return found

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
