"""The agent's link to the cluster: its placements come in, what it runs goes out.

Reports are kept as the newest value per unit or container and written in batches; while the store is away they wait,
bounded by what the machine runs. After a lost lease nothing is reported and no placement is handed on until the
engine has answered what this machine, which went on running its units, may keep.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress

from agent.interfaces import ContainerRecord, Placement, UnitState, Unreadable
from fleetd.registry import keys, records
from fleetd.registry.follow import RETRY_S, Changed, Listed, follow, list_prefix
from fleetd.registry.records import RUNNING, Placed, Return
from fleetd.registry.texts import Texts
from kvstore.client import Client
from kvstore.errors import LeaseNotFound, StoreError
from kvstore.model import MAX_TXN_OPS, Compare, KeyValue, Op

log = logging.getLogger(__name__)
ASK_AGAIN_S = 5.0
"""How long an engine's answer is waited for; a new lease also counts from then on."""
SWEEP_AFTER_S = 10.0
"""How long the agent has to take over what it finds before reports of an earlier fleetd are dropped."""
FIRST_REPORT_S = 2.0
"""How long a return waits for the agent to say what it has taken over."""

_Item = Placed | Unreadable


class ClusterLink:
    """Implements :class:`agent.interfaces.Cluster` over the store. `run()` must be running for reports to go out."""

    def __init__(self, client: Client, machine_id: str) -> None:
        self._client = client
        self._machine = machine_id
        self._lease = 0
        self._returning = False
        self._ready = asyncio.Event()
        self._wake = asyncio.Event()
        self._reported = asyncio.Event()
        self._units: dict[str, UnitState] = {}
        self._containers: dict[str, ContainerRecord] = {}
        self._dirty: OrderedDict[bytes, bytes | None] = OrderedDict()
        self._texts = Texts()
        self._known = 0

    def set_lease(self, lease: int, *, returning: bool | None = None) -> None:
        """Name the machine's lease. A second one means that the first was lost while units ran on: then the engine
        is asked first what may stay (so too when `returning` is true: a fleetd that found its lease gone at start).
        """
        if lease == self._lease:
            return
        back = self._lease != 0 if returning is None else returning
        self._lease = lease
        self._dirty.clear()
        for state in self._units.values():
            self._dirty[keys.state(self._machine, state.unit)] = records.state_value(state)
        for container in self._containers.values():
            self._dirty[keys.container(self._machine, container.id)] = records.container_value(container)
        self._returning = back
        if back:
            self._ready.clear()
        elif lease:
            self._ready.set()
        self._wake.set()

    async def report_units(self, changed: Sequence[UnitState], gone: Sequence[str]) -> None:
        """Publish unit states; the newest per unit wins."""
        self._reported.set()
        for state in changed:
            self._units[state.unit] = state
            self._put(keys.state(self._machine, state.unit), records.state_value(state))
        for unit in gone:
            self._units.pop(unit, None)
            self._put(keys.state(self._machine, unit), None)

    async def report_containers(self, changed: Sequence[ContainerRecord], gone: Sequence[str]) -> None:
        """Publish running containers; `gone` holds ids."""
        for container in changed:
            self._containers[container.id] = container
            self._put(keys.container(self._machine, container.id), records.container_value(container))
        for container_id in gone:
            self._containers.pop(container_id, None)
            self._put(keys.container(self._machine, container_id), None)

    async def confirm(self, unit: str) -> bool:
        """Whether the unit is placed here and the machine is present under its own lease, by the store's word."""
        lease = self._lease
        if self._returning or not lease:
            return False
        held = [
            Compare.lease(keys.presence(self._machine), "=", lease),
            Compare.create(keys.placement(self._machine, unit), ">", 0),
        ]
        try:
            return (await self._client.txn(held, [])).succeeded
        except StoreError as error:
            log.debug("The placement of %s can't be confirmed now: %s", unit, error)
            return False

    def _put(self, key: bytes, value: bytes | None) -> None:
        self._dirty[key] = value
        self._wake.set()

    async def run(self) -> None:
        """Write reports as they come, and ask the engine after a lost lease. Runs until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sweep())
            await self._write()

    async def _sweep(self) -> None:
        """Delete what an earlier fleetd of this boot reported and nobody has reported since: it ended meanwhile."""
        await asyncio.sleep(SWEEP_AFTER_S)
        while True:
            await self._ready.wait()
            try:
                for prefix in (keys.state(self._machine, ""), keys.container(self._machine, "")):
                    for kv in (await list_prefix(self._client, prefix)).kvs:
                        name = keys.split(kv.key)[1][-1]
                        if name not in self._units and name not in self._containers:
                            self._put(kv.key, None)
                return
            except StoreError as error:
                log.debug("The sweep of old reports waits for the store: %s", error)
                await asyncio.sleep(RETRY_S)

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                if self._returning:
                    await self._come_back(self._lease)
                await self._send()
            except TimeoutError:
                log.warning("No engine has answered this machine's return; it is asked again.")
                self._wake.set()
            except LeaseNotFound:
                log.warning("The machine's lease is gone; reports wait for a new one.")
            except StoreError as error:
                log.debug("Reports wait for the store: %s", error)
                self._wake.set()
                await asyncio.sleep(RETRY_S)

    async def _send(self) -> None:
        while self._dirty and self._lease and not self._returning:
            lease = self._lease
            batch = dict(list(self._dirty.items())[:MAX_TXN_OPS])
            ops = [Op.delete(k) if v is None else Op.put(k, v, lease=lease) for k, v in batch.items()]
            await self._client.txn([], ops)
            if lease != self._lease:
                return
            for key, value in batch.items():
                if key in self._dirty and self._dirty[key] is value:
                    del self._dirty[key]

    def running(self) -> dict[str, int]:
        """What the machine runs, with the epochs that it was told to."""
        return {state.unit: state.epoch for state in self._units.values() if state.active in RUNNING}

    async def _come_back(self, lease: int) -> None:
        key = keys.returning(self._machine)
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_REPORT_S):
                await self._reported.wait()
        claim = Return(self._machine, lease, self.running())
        asked = await self._client.put(key, claim.value())
        log.info("Back after a lost lease with %d running units; the engine is asked.", len(claim.asking or ()))
        watch = self._client.watch(key, start_revision=asked.header.revision + 1)
        async with asyncio.timeout(ASK_AGAIN_S), watch:
            async for batch in watch:
                for event in batch.events:
                    if event.type != "put":
                        continue
                    try:
                        answer = Return.read(self._machine, key, event.kv.value)
                    except keys.RegistryError as error:
                        log.error("An answer to this machine's return is left out: %s", error)
                        continue
                    if answer.asking is None and answer.lease == lease == self._lease:
                        self._returning = False
                        self._ready.set()
                        return

    async def placements(self) -> AsyncIterator[Mapping[str, Placement | Unreadable]]:
        """Yield the whole set for this machine, first as it is now, then after every change."""
        placed: dict[str, _Item] = {}
        changes = follow(self._client, keys.placements(self._machine))
        async for change in changes:
            before = placed
            placed = self._apply(placed, change)
            if not placed.keys() >= before.keys() or not self._ready.is_set() or isinstance(change, Listed):
                await self._settle(placed)
            yield {unit: await self._with_text(item) for unit, item in placed.items()}

    def _apply(self, placed: dict[str, _Item], change: Listed | Changed) -> dict[str, _Item]:
        """The set after a change."""
        found = {} if isinstance(change, Listed) else dict(placed)
        for kv in change.kvs if isinstance(change, Listed) else ():
            self._put_placed(kv, found)
        for event in change.events if isinstance(change, Changed) else ():
            if event.kv.mod_revision <= self._known:
                continue
            if event.type == "put":
                self._put_placed(event.kv, found)
            else:
                found.pop(keys.split(event.kv.key)[1][-1], None)
        return found

    def _put_placed(self, kv: KeyValue, found: dict[str, _Item]) -> None:
        unit = keys.split(kv.key)[1][-1]
        try:
            found[unit] = Placed.read(self._machine, unit, kv.key, kv.value, kv.mod_revision)
        except keys.RegistryError as error:
            found[unit] = Unreadable(unit, kv.mod_revision, str(error))

    async def _settle(self, placed: dict[str, _Item]) -> None:
        """Wait until a removal may be believed: this machine is present under its lease, and is not returning. A
        removal while it was thought dead is for the engine to confirm; what it restores replaces the set."""
        while True:
            await self._ready.wait()
            try:
                key = keys.presence(self._machine)
                found = await self._client.get(key)
                present = bool(found.kvs) and found.kvs[0].lease == self._lease
                if present and self._ready.is_set():
                    await self._refresh(placed)
                    return
            except StoreError as error:
                log.debug("A removal waits for the store: %s", error)
            await asyncio.sleep(RETRY_S)

    async def _refresh(self, placed: dict[str, _Item]) -> None:
        listed = await list_prefix(self._client, keys.placements(self._machine))
        fresh = self._apply(placed, listed)
        placed.clear()
        placed.update(fresh)
        self._known = listed.revision

    async def _with_text(self, item: Placed | Unreadable) -> Placement | Unreadable:
        if isinstance(item, Unreadable):
            return item
        try:
            return Placement(item.unit, await self._file(item.file), item.desired, item.epoch)
        except keys.RegistryError as error:
            return Unreadable(item.unit, item.epoch, str(error))

    async def _file(self, digest: str) -> str:
        if (known := self._texts.get(digest)) is not None:
            return known
        key = keys.file(digest)
        while True:
            try:
                found = await self._client.get(key)
                break
            except StoreError:
                await asyncio.sleep(RETRY_S)
        if not found.kvs:
            raise keys.RegistryError(f"The unit file {digest} is not in the store; submit the unit again.")
        return self._texts.keep(digest, str(keys.decode(key, found.kvs[0].value)["text"]))
