"""A copy of the keys under a prefix, kept up to date by a watch: reads from it ask nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType

from kvstore.client import Client, prefix_end
from kvstore.errors import Compacted, StoreError
from kvstore.model import KeyValue, WatchBatch
from kvstore.recipes import waiting
from kvstore.recipes.errors import RecipeError


class WatchCache(Mapping[bytes, KeyValue]):
    """Use as `async with WatchCache(client, b"prefix/") as cache`, then as a mapping from keys to KeyValue.

    Guarantees: what it shows is what the store had at one revision, `revision`, for all keys of the prefix together;
    it only goes forward, and skips no revision that changed the prefix unless the store has compacted it (then it loads
    everything anew). Lost connections and changes of the leader delay it, and no more.

    Does not guarantee that it is current: how far it lags can't be known without asking the store. Decide on it, and
    let a transaction check what the decision stands on (`Compare.mod`). After a write of your own, `until(revision)`
    waits until it shows that write.
    """

    def __init__(self, client: Client, prefix: bytes) -> None:
        self._client = client
        self._prefix = prefix
        self._end = prefix_end(prefix)
        self._kvs: dict[bytes, KeyValue] = {}
        self._changed = asyncio.Condition()
        self._error: StoreError | None = None
        self._following: asyncio.Task[None] | None = None
        self.revision = 0
        """The last revision known to be shown; 0 before the first load."""

    async def __aenter__(self) -> WatchCache:
        await self._load()
        self._following = asyncio.create_task(self._follow())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self._fail(StoreError("cancelled", "The cache is closed."))

    def __getitem__(self, key: bytes) -> KeyValue:
        self._check()
        return self._kvs[key]

    def __iter__(self) -> Iterator[bytes]:
        self._check()
        return iter(sorted(self._kvs))

    def __len__(self) -> int:
        self._check()
        return len(self._kvs)

    def _check(self) -> None:
        """Raise once the cache is kept up to date no more."""
        if self._error is not None:
            raise self._error
        if not self.revision:
            raise RecipeError("The cache is not loaded: use it in `async with`.")

    async def until(self, revision: int) -> None:
        """Wait until everything is shown that happened to the prefix up to a revision that changed it."""
        await self.wait_for(lambda cache: cache.revision >= revision)

    async def wait_for(self, what: Callable[[WatchCache], bool]) -> None:
        """Wait until `what` is true of the cache. Raises StoreError when the cache is closed or can't go on."""
        async with self._changed:
            while not what(self):
                self._check()
                await self._changed.wait()

    async def _load(self) -> None:
        found = await waiting.patiently(lambda: self._client.get(self._prefix, range_end=self._end))
        async with self._changed:
            self._kvs = {kv.key: kv for kv in found.kvs}
            self.revision = found.header.revision
            self._changed.notify_all()

    async def _follow(self) -> None:
        try:
            while True:
                try:
                    await self._watch()
                except Compacted:
                    await self._load()
        except StoreError as error:
            await self._fail(error)

    async def _watch(self) -> None:
        async with self._client.watch(self._prefix, range_end=self._end, start_revision=self.revision + 1) as watch:
            async for batch in watch:
                await self._apply(batch)

    async def _apply(self, batch: WatchBatch) -> None:
        async with self._changed:
            for event in batch.events:
                if event.type == "put":
                    self._kvs[event.kv.key] = event.kv
                else:
                    self._kvs.pop(event.kv.key, None)
            self.revision = max(self.revision, batch.revision)
            self._changed.notify_all()

    async def _fail(self, error: StoreError) -> None:
        async with self._changed:
            self._error = self._error or error
            self._changed.notify_all()
