"""Lead: campaign for the engine's key on a short lease, follow the records while leading, plan and commit.

The lease is renewed from this event loop alone, so an engine that hangs loses it. What to decide is in `plan`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable

from fleetd.engine.brake import HOLD_TTLS, SILENCE_TTLS, Brake
from fleetd.engine.commit import Deposed, commit
from fleetd.engine.decisions import Alarm
from fleetd.engine.files import FileSweep, delete
from fleetd.engine.plan import Planner
from fleetd.engine.snapshot import Snapshot
from fleetd.registry import keys
from fleetd.registry.follow import RETRY_S, Changed, Listed, follow
from fleetd.registry.records import LEASE_TTL_S
from kvstore.client import Client
from kvstore.errors import LeaseNotFound, StoreError
from kvstore.model import Compare, Op

log = logging.getLogger(__name__)
QUEUE = 256
"""Batches of changes that may wait while a plan is committed."""
GIVE_UP_S = 1.0
"""How long the end of a term waits for its lease to be revoked; it expires by itself."""
_OWN = (keys.PLACEMENTS, keys.REASONS)


def _first(error: BaseException) -> BaseException:
    """What a group of errors, or a group in it, holds first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class Engine:
    """One machine's engine; of all in the cluster one leads. `run()` until cancelled."""

    def __init__(
        self,
        client: Client,
        machine_id: str,
        *,
        booted: bool = False,
        compacts: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`compacts`: the store is ours, and so is its history.

        `booted`: the machine has just come up in a cluster that was there before, so that nobody here knows how
        long the store was silent; that counts as a silence."""
        self._client = client
        self._machine = machine_id
        self._compacts = compacts
        self._clock = clock
        self._answered = -math.inf if booted else clock()
        self._silence: float | None = None
        self.leading = False

    async def run(self) -> None:
        """Campaign and lead, term after term."""
        if math.isfinite(self._answered):
            self._answered = self._clock()
        while True:
            try:
                await self._term()
            except* Deposed as over:
                log.info("The engine's term is over: %s", _first(over))
                await asyncio.sleep(RETRY_S)
            except* StoreError as error:
                log.warning("The engine lost the store: %s", _first(error))
                await asyncio.sleep(RETRY_S)
            finally:
                self.leading = False

    async def _term(self) -> None:
        grant = await self._client.lease_grant(LEASE_TTL_S)
        self._heard()
        try:
            async with asyncio.TaskGroup() as group:
                renewal = group.create_task(self._renew(grant.id))
                term = await self._campaign(grant.id)
                log.info("This machine leads the engine, term %d.", term)
                self.leading = True
                await self._lead(term)
                renewal.cancel()
        finally:
            self.leading = False
            await asyncio.shield(self._give_up(grant.id))

    async def _give_up(self, lease: int) -> None:
        try:
            async with asyncio.timeout(GIVE_UP_S):
                await self._client.lease_revoke(lease)
        except (StoreError, TimeoutError) as error:
            log.debug("The engine's lease %x was left to expire: %s", lease, error)

    async def _renew(self, lease: int) -> None:
        """Keep the lease; it ends the term when the lease is gone."""
        while True:
            await asyncio.sleep(LEASE_TTL_S / 3)
            try:
                await self._client.lease_keepalive(lease)
                self._heard()
            except LeaseNotFound as error:
                self._heard()
                raise Deposed("its lease has expired.") from error
            except StoreError as error:
                log.debug("The engine's lease could not be renewed: %s", error)

    def _heard(self) -> None:
        now = self._clock()
        if now - self._answered > SILENCE_TTLS * LEASE_TTL_S:
            self._silence = now
        self._answered = now

    async def _campaign(self, lease: int) -> int:
        """Wait until this engine leads; the term is the create revision of its key."""
        value = keys.encode(machine=self._machine)
        while True:
            done = await self._client.txn(
                [Compare.create(keys.LEADER, "=", 0)], [Op.put(keys.LEADER, value, lease=lease)]
            )
            if done.succeeded:
                return int(done.header.revision)
            watch = self._client.watch(keys.LEADER, start_revision=done.header.revision + 1)
            async with watch:
                async for batch in watch:
                    if any(event.type == "delete" for event in batch.events):
                        break

    async def _lead(self, term: int) -> None:
        written = 0
        while True:
            queue: asyncio.Queue[Listed | Changed] = asyncio.Queue(QUEUE)
            async with asyncio.TaskGroup() as group:
                feeding = group.create_task(self._feed(follow(self._client, keys.ROOT), queue))
                written = await self._work(term, queue, written)
                feeding.cancel()

    @staticmethod
    async def _feed(changes: AsyncIterator[Listed | Changed], queue: asyncio.Queue[Listed | Changed]) -> None:
        async for change in changes:
            await queue.put(change)

    async def _work(self, term: int, queue: asyncio.Queue[Listed | Changed], written: int) -> int:
        """Plan and commit by what the queue brings; `written` is the revision of this term's last transaction. Returns
        it anew when a listing is older: what was written since is not in it, so planning by it would place a unit a
        second time. A listing that is asked for after that holds it.
        """
        planner = Planner(Snapshot(), Brake(LEASE_TTL_S))
        files = FileSweep(self._clock())
        own: set[int] = set()
        while True:
            change = await self._next(queue, min(files.due, math.inf if planner.due_next is None else planner.due_next))
            if change is not None:
                self._heard()
            while change is not None:
                if isinstance(change, Listed):
                    if change.revision < written:
                        return written
                    planner = Planner(Snapshot(), Brake(LEASE_TTL_S))
                    planner.snapshot.load(change.kvs)
                    own.clear()
                else:
                    self._take(planner.snapshot, change, own)
                change = None if queue.empty() else queue.get_nowait()
            now = self._clock()
            if self._silence is not None and now - self._silence < HOLD_TTLS * LEASE_TTL_S:
                planner.brake.silence(self._silence)
            self._silence = None if self._silence is None or planner.brake.alarm else self._silence
            groups = planner.plan(now)
            revisions = await commit(self._client, term, groups)
            own.update(revisions)
            written = max([written, *revisions])
            if revisions:  # a plan that writes nothing asks nobody
                self._heard()
            if now >= files.due and (unused := files.look(planner.snapshot, now)):
                deleted = await delete(self._client, term, unused)
                self._heard()
                log.info("%d of %d unit files that nothing refers to are deleted", deleted, len(unused))
            for text in [decision.text for group in groups for decision in group if isinstance(decision, Alarm)]:
                log.warning("%s", text or "The alarm is over: units of lost machines may move.")

    def _take(self, snapshot: Snapshot, change: Changed, own: set[int]) -> None:
        """Apply a change, but for the echo of our own writes: what came after them is assumed already."""
        for event in change.events:
            if event.kv.mod_revision in own and event.kv.key.startswith(_OWN):
                continue
            if event.type == "delete" and event.kv.key == keys.LEADER:
                raise Deposed("its key was deleted.")
            snapshot.apply(event)
        own.difference_update([revision for revision in own if revision <= change.revision])

    async def _next(self, queue: asyncio.Queue[Listed | Changed], due: float) -> Listed | Changed | None:
        wait = max(0.0, due - self._clock())
        try:
            async with asyncio.timeout(wait):
                return await queue.get()
        except TimeoutError:
            return None
