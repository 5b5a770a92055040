"""A place in a queue of sessions: what a lock and an election have in common.

Source: etcd's `clientv3/concurrency`. The key is `<name>/<lease in hex>`, on the session's lease; the one with the
lowest create revision holds. Each of the others waits for its predecessor's key to go and for nothing else, so that a
release wakes one.
"""

from __future__ import annotations

import contextlib

from kvstore.client import prefix_end
from kvstore.errors import StoreError, Unavailable
from kvstore.model import Compare, KeyValue, Op, RangeResult
from kvstore.recipes import waiting
from kvstore.recipes.errors import InDoubt, RecipeError, SessionLost
from kvstore.recipes.once import Once
from kvstore.recipes.session import Session


class Contender:
    """One session that stands, or may stand, in the queue of `name`."""

    def __init__(self, session: Session, name: bytes) -> None:
        self._session = session
        self._client = session.client
        self._name = name
        self._once: Once | None = None
        self.prefix = name + b"/"
        self.revision = 0
        """The create revision of our key; 0 while not queued."""

    @property
    def key(self) -> bytes:
        """Our key, be it there or not."""
        return self.prefix + b"%x" % self._session.lease

    @property
    def fence(self) -> Compare:
        """Holds as long as our key is there. While not queued it holds never."""
        return Compare.create(self.key, "=", self.revision or -1)

    async def join(self, value: bytes) -> bool:
        """Enter the queue, or find the place that the session has; True when it is the first. Cancelled, it leaves."""
        await self._session.settled(self.key)
        own, head = await self._session.undoable(self.key, self._enter(value), self._withdraw)
        self.revision = own.create_revision
        if own.value != value:
            await self._revalue(value)
        return head == self.revision

    async def _enter(self, value: bytes) -> tuple[KeyValue, int]:
        """Our key, and the create revision of the first in the queue: 0 when it is not known."""
        key, lease = self.key, self._session.lease
        end = prefix_end(self.prefix)
        head = Op.get(self.prefix, range_end=end, sort=("create", False), limit=1, keys_only=True)
        self._once = self._once or self._session.writer(b"__" + self._name)
        joining = self._once.txn(
            [Compare.create(key, "=", 0)],
            [Op.put(key, value, lease=lease), head],
            [Op.get(key), head],
            traced=False,
        )
        try:
            outcome = await joining
        except InDoubt as error:
            # If it is there, it goes with the lease.
            raise SessionLost(str(error)) from error
        own = KeyValue(key, value, outcome.revision, outcome.revision, 1, lease)
        if outcome.responses is None:
            return own if outcome.succeeded else await self._own(), 0
        first, heads = outcome.responses
        assert isinstance(heads, RangeResult)
        if isinstance(first, RangeResult):
            own = first.kvs[0]
        return own, heads.kvs[0].create_revision  # our key is among them

    async def _own(self) -> KeyValue:
        found = await waiting.patiently(lambda: self._client.get(self.key))
        if not found.kvs:
            raise SessionLost(f"The key {self.key!r} was deleted, or lease {self._session.lease:x} has ended.")
        return found.kvs[0]

    async def _revalue(self, value: bytes) -> None:
        try:
            await self.announce(value)
        except BaseException:
            with contextlib.suppress(StoreError, RecipeError):
                await self.leave()
            raise

    async def announce(self, value: bytes) -> bool:
        """Change our key's value; False when the key is gone."""
        assert self._once is not None, "only who has joined has something to announce"
        put = Op.put(self.key, value, lease=self._session.lease)
        return (await self._once.txn([self.fence], [put], traced=False)).succeeded

    async def until_first(self) -> None:
        """Wait until nobody is before us. Raises SessionLost when our key is gone; in any trouble it leaves."""
        try:
            while (before := await self._predecessor()) is not None:
                key, since = before
                await waiting.gone(self._client, key, since)
            if (await self._own()).create_revision != self.revision:
                raise SessionLost(f"The key {self.key!r} was deleted.")
        except BaseException:
            with contextlib.suppress(StoreError, RecipeError):
                await self.leave()
            raise

    async def _predecessor(self) -> tuple[bytes, int] | None:
        """The key just before ours, and the first revision at which it can go."""
        found = await waiting.patiently(
            lambda: self._client.get(
                self.prefix,
                range_end=prefix_end(self.prefix),
                max_create_revision=self.revision - 1,
                sort=("create", True),
                limit=1,
                keys_only=True,
            )
        )
        return (found.kvs[0].key, found.header.revision + 1) if found.kvs else None

    async def leave(self) -> None:
        """Delete our key, if it still is ours. Where the store is away, the session goes on trying."""
        revision, self.revision = self.revision, 0
        if revision:
            await self._session.clean_up(self.key, self._delete(revision))

    async def _withdraw(self, entered: tuple[KeyValue, int]) -> None:
        """Take back a `join` that was cancelled."""
        await self._delete(entered[0].create_revision)

    async def _delete(self, revision: int) -> None:
        # Sent again it can do no harm: no other key will have this create revision.
        while self._session.alive:
            try:
                await self._client.txn([Compare.create(self.key, "=", revision)], [Op.delete(self.key)])
            except Unavailable:
                await waiting.pause()
                continue
            return

    async def look(self) -> RangeResult:
        """The key of who holds now, if anybody does, by a linearizable read."""
        end = prefix_end(self.prefix)
        return await waiting.patiently(
            lambda: self._client.get(self.prefix, range_end=end, sort=("create", False), limit=1)
        )
