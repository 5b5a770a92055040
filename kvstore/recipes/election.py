"""Election of a leader among sessions. Keys are those of `etcdctl elect` and Go's `concurrency.Election`, which may
stand in the same election.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from kvstore.errors import Compacted
from kvstore.model import Compare, KeyValue
from kvstore.recipes import waiting
from kvstore.recipes.contender import Contender
from kvstore.recipes.errors import NotLeader
from kvstore.recipes.session import Session


class Election:
    """Campaign for `name` with a value; one of all who campaign leads.

    Guarantees: as the store sees it one session leads at a time, in the order of coming; when its lease ends, the next
    leads. Who campaigns again on the same session, be it in a new process (`Session(lease=...)`), keeps its place.
    A campaign that fails or is cancelled leaves no key behind. `observe` shows the leaders in order, always the last,
    not always each.

    Does not guarantee that a deposed leader knows it. What it writes to the store is protected by `fence`, what it does
    elsewhere only where the receiver refuses a `term` smaller than one it has seen. Run what a leader does in
    `async with session.guarded()`, which is interrupted when the session is lost.

    Source: etcd's `clientv3/concurrency.Election`.
    """

    def __init__(self, session: Session, name: bytes) -> None:
        self._session = session
        self._contender = Contender(session, name)
        self._leads = False

    @property
    def key(self) -> bytes:
        """Our key under the election's name."""
        return self._contender.key

    @property
    def term(self) -> int:
        """The fencing token: greater for each later leader. 0 while we do not lead."""
        return self._contender.revision if self._leads else 0

    @property
    def fence(self) -> Compare:
        """A comparison for transactions that holds only until we are deposed."""
        return self._contender.fence

    async def campaign(self, value: bytes) -> None:
        """Return when we lead. Raises SessionLost, or StoreError when the store refuses."""
        async with self._session.guarded():
            if not await self._contender.join(value):
                await self._contender.until_first()
        self._leads = True

    async def proclaim(self, value: bytes) -> None:
        """Change our value without giving up the lead. Raises NotLeader when we do not lead (any more)."""
        if not self._leads or not await self._contender.announce(value):
            self._leads = False
            raise NotLeader(f"Another one leads {self._contender.prefix!r} now, or nobody.")

    async def resign(self) -> None:
        """Give up the lead, if we have it."""
        self._leads = False
        await self._contender.leave()

    async def leader(self) -> KeyValue | None:
        """Who leads now, by a linearizable read; its value is what it campaigned with or proclaimed last."""
        found = await self._contender.look()
        return found.kvs[0] if found.kvs else None

    async def observe(self) -> AsyncIterator[KeyValue]:
        """Each leader from the present one on, and each of its proclamations. It does not end by itself."""
        shown = (b"", 0)
        while True:
            found = await self._contender.look()
            if not found.kvs:
                await waiting.put_under(self._session.client, self._contender.prefix, found.header.revision + 1)
                continue
            leader = found.kvs[0]
            if shown != (shown := (leader.key, leader.mod_revision)):
                yield leader
            async for value in self._values(leader.key, found.header.revision + 1):
                shown = (value.key, value.mod_revision)
                yield value

    async def _values(self, key: bytes, since: int) -> AsyncIterator[KeyValue]:
        """What a key becomes until it is deleted."""
        try:
            async with self._session.client.watch(key, start_revision=since) as watch:
                async for batch in watch:
                    for event in batch.events:
                        if event.type == "delete":
                            return
                        yield event.kv
        except Compacted:
            return
