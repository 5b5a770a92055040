"""A double barrier: a number of sessions begin together and end together. Keys are those of etcd's
`recipe.DoubleBarrier`: each participant has one under `<key>/waiters/`, the last to enter puts `<key>/ready`.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Sequence
from types import TracebackType

from kvstore.client import prefix_end
from kvstore.errors import StoreError, Unavailable
from kvstore.model import Compare, KeyValue, Op, RangeResult
from kvstore.recipes import waiting
from kvstore.recipes.errors import BarrierFull, RecipeError, SessionLost
from kvstore.recipes.once import Outcome
from kvstore.recipes.session import Session


class DoubleBarrier:
    """Use as `async with DoubleBarrier(session, b"key", count)`: the body begins when `count` have entered, and the
    exit returns when all have left. One object for each participant.

    Guarantees: nobody's body begins before `count` were inside at one moment; nobody's `leave` returns while another
    one who entered is inside and alive. A participant that dies counts as gone when its lease ends. An `enter` that
    fails or is cancelled leaves no key behind; a body that raises leaves at once, without waiting for the others;
    one whose session is lost is interrupted with SessionLost.

    Does not guarantee that all are still there when the bodies begin: one may die between. A key serves one round at a
    time: who enters while others still leave an earlier round may be counted into that.

    Source: etcd's `client/v3/experimental/recipes`, DoubleBarrier; ZooKeeper's recipe of this name.
    """

    def __init__(self, session: Session, key: bytes, count: int) -> None:
        if count < 1:
            raise ValueError(f"A double barrier is for 1 or more, not for {count}.")
        self._session = session
        self._client = session.client
        self._name = key
        self._waiters = key + b"/waiters"
        self._ready = key + b"/ready"
        self._count = count
        self._key = b""
        self._revision = 0
        self._guard = session.guarded()

    async def enter(self) -> None:
        """Wait until `count` have entered. Raises BarrierFull, SessionLost, or StoreError when the store refuses."""
        if self._revision:
            raise BarrierFull("This participant has entered already: each needs an object of its own.")
        async with self._session.guarded():
            if (await self._inside()).count >= self._count:
                raise self._full()
            self._key = b"%s/%d-%s" % (self._waiters, time.time_ns(), secrets.token_hex(4).encode())
            work = self._session.once(b"__" + self._name).txn(
                [Compare.create(self._key, "=", 0)], [Op.put(self._key, lease=self._session.lease)], traced=False
            )
            outcome = await self._session.undoable(self._key, work, self._withdraw)
            try:
                self._revision = outcome.revision if outcome.succeeded else await self._created()
                await self._meet()
            except BaseException:
                with contextlib.suppress(StoreError, RecipeError):
                    await self._go()
                raise

    async def _created(self) -> int:
        found = await waiting.patiently(lambda: self._client.get(self._key))
        if not found.kvs:
            raise SessionLost(f"The key {self._key!r} was deleted, or lease {self._session.lease:x} has ended.")
        return found.kvs[0].create_revision

    async def _withdraw(self, outcome: Outcome) -> None:
        self._revision = outcome.revision if outcome.succeeded else await self._created()
        await self._delete([Op.delete(self._key)])

    async def _inside(self) -> RangeResult:
        """The participants in the order in which they entered."""
        prefix = self._waiters + b"/"
        return await waiting.patiently(
            lambda: self._client.get(prefix, range_end=prefix_end(prefix), sort=("create", False), keys_only=True)
        )

    def _full(self) -> BarrierFull:
        return BarrierFull(f"{self._count} are inside of {self._name!r} already.")

    async def _meet(self) -> None:
        """Open the barrier if we are the last that it needs, else wait until it is opened."""
        inside = (await self._inside()).kvs
        if len(inside) >= self._count:
            last = inside[self._count - 1].create_revision
            if self._revision > last:
                raise self._full()
            if self._revision == last:
                return await self._while_inside([Op.put(self._ready)])
        while True:
            found = await waiting.patiently(lambda: self._client.get(self._ready))
            # An older one is of an earlier round.
            if found.kvs and found.kvs[0].mod_revision > self._revision:
                return
            if await waiting.put(self._client, self._ready, found.header.revision + 1):
                return

    async def _while_inside(self, ops: Sequence[Op]) -> None:
        """Do something unless our key is gone. Sent again it does no harm, and after our key has gone nothing."""
        while True:
            self._session.check()
            try:
                await self._client.txn([Compare.create(self._key, "=", self._revision)], ops)
            except Unavailable:
                await waiting.pause()
                continue
            return

    async def leave(self) -> None:
        """Wait until all have left. Raises SessionLost, or StoreError. Cancelled, it leaves at once."""
        async with self._session.guarded():
            try:
                while (inside := await self._inside()).kvs:
                    await self._step(inside.kvs, inside.header.revision + 1)
            except BaseException:
                with contextlib.suppress(StoreError, RecipeError):
                    await self._go()
                raise
        self._revision = 0

    async def _step(self, inside: Sequence[KeyValue], since: int) -> None:
        """The first that entered leaves last, and waits for the newest; each other one leaves and waits for it."""
        first, newest = inside[0], inside[-1]
        if first.key == self._key:
            if len(inside) == 1:
                return await self._delete([Op.delete(self._ready), Op.delete(self._key)])
            await waiting.gone(self._client, newest.key, since)
        else:
            await self._go()
            await waiting.gone(self._client, first.key, since)

    async def _go(self) -> None:
        """Delete our key."""
        if self._revision:
            await self._session.clean_up(self._key, self._delete([Op.delete(self._key)]))

    async def _delete(self, ops: Sequence[Op]) -> None:
        await self._while_inside(ops)
        self._revision = 0

    async def __aenter__(self) -> DoubleBarrier:
        await self.enter()
        self._guard = self._session.guarded()
        await self._guard.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._guard.__aexit__(kind, error, trace)
        if kind is None:
            await self.leave()
        else:
            with contextlib.suppress(StoreError, RecipeError):
                await self._go()
