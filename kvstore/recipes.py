"""Lock and election on a lease: the key with the lowest create revision under a prefix holds. The holder keeps its
lease alive itself; when the lease ends, so does the hold.
"""

from __future__ import annotations

from kvstore.client import Client, prefix_end
from kvstore.model import Compare, KeyValue, Op


class Election:
    """Campaign for a prefix with a value. Everyone who campaigns queues up; one leads."""

    def __init__(self, client: Client, prefix: bytes, lease: int) -> None:
        self._client = client
        self._prefix = prefix.rstrip(b"/") + b"/"
        self._lease = lease
        self.key = self._prefix + b"%x" % lease
        self.revision = 0
        """The create revision of our key: what fenced transactions compare. 0 while not queued."""

    @property
    def fence(self) -> Compare:
        """Holds as long as our key does; a transaction with it fails once we are deposed."""
        return Compare.create(self.key, "=", self.revision)

    async def campaign(self, value: bytes) -> None:
        """Return when we lead. Cancelled, it leaves the queue."""
        done = await self._client.txn(
            [Compare.create(self.key, "=", 0)],
            [Op.put(self.key, value, lease=self._lease)],
            [Op.put(self.key, value, lease=self._lease)],
        )
        self.revision = done.header.revision if done.succeeded else await self._created()
        try:
            await self._until_first()
        except BaseException:
            await self.resign()
            raise

    async def _created(self) -> int:
        found = await self._client.get(self.key)
        return found.kvs[0].create_revision if found.kvs else 0

    async def _until_first(self) -> None:
        while True:
            before = await self._client.get(
                self._prefix,
                range_end=prefix_end(self._prefix),
                max_create_revision=self.revision - 1,
                sort=("create", True),
                limit=1,
                keys_only=True,
            )
            if not before.kvs:
                return
            async with self._client.watch(before.kvs[0].key, start_revision=before.header.revision + 1) as watch:
                async for batch in watch:
                    if any(event.type == "delete" for event in batch.events):
                        break

    async def proclaim(self, value: bytes) -> bool:
        """Change our value without giving up the lead; False when we are deposed."""
        done = await self._client.txn([self.fence], [Op.put(self.key, value, lease=self._lease)])
        return done.succeeded

    async def resign(self) -> None:
        """Leave the queue or the lead."""
        if self.revision:
            await self._client.txn([self.fence], [Op.delete(self.key)])
            self.revision = 0

    async def leader(self) -> KeyValue | None:
        """Who leads now."""
        end = prefix_end(self._prefix)
        found = await self._client.get(self._prefix, range_end=end, sort=("create", False), limit=1)
        return found.kvs[0] if found.kvs else None


class Lock:
    """A mutex over the cluster, as an async context manager; guard writes with `fence`."""

    def __init__(self, client: Client, prefix: bytes, lease: int) -> None:
        self._election = Election(client, prefix, lease)

    @property
    def fence(self) -> Compare:
        """Holds as long as the lock is ours."""
        return self._election.fence

    async def __aenter__(self) -> Lock:
        await self._election.campaign(b"")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._election.resign()
