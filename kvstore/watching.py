"""A watch as an async iterator. Reconnecting and resuming is native; this hands over what came, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Any, Protocol

from kvstore.errors import Compacted, StoreError, of_status
from kvstore.model import Event, Header, KeyValue, WatchBatch


class Source(Protocol):
    """What a watch needs of its client."""

    def open_watch(self, watch: Watch, options: tuple[bytes, bytes, int, bool, bool]) -> int:
        """Start it; deliveries go to `watch.take`. Returns its number."""

    def took(self, number: int) -> None:
        """One delivery was consumed."""

    def ask_progress(self, number: int) -> None:
        """Have it told how far it has come."""

    def close_watch(self, number: int) -> None:
        """End it."""


class Watch:
    """Use as `async with watch: async for batch in watch`. It does not end by itself, but raises Compacted or another
    StoreError."""

    def __init__(self, source: Source, options: tuple[bytes, bytes, int, bool, bool]) -> None:
        self._source = source
        self._options = options
        self._number = 0
        self._queue: deque[WatchBatch] = deque()
        self._error: StoreError | None = None
        self._created = False
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Watch:
        """Without a start revision it returns once the watch stands: whatever is put from then on will come."""
        self._number = self._source.open_watch(self, self._options)
        if self._options[2] == 0:
            try:
                while not self._created and self._error is None:
                    await self._wait()
            except BaseException:
                self.close()
                raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the watch; what has come and was not read is dropped."""
        if self._number:
            self._source.close_watch(self._number)
            self._number = 0
        self._error = self._error or StoreError("cancelled", "The watch is closed.")
        self._queue.clear()
        self._changed.set()

    def request_progress(self) -> None:
        """Ask how far the watch has come: a batch without events will tell. Raises StoreError when it is not open."""
        if not self._number:
            raise self._error or StoreError("cancelled", "The watch is not open: use it in `async with`.")
        self._source.ask_progress(self._number)

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> WatchBatch:
        while not self._queue:
            if self._error is not None:
                raise self._error
            if not self._number:
                raise StoreError("cancelled", "The watch is not open: use it in `async with`.")
            await self._wait()
        batch = self._queue.popleft()
        self._source.took(self._number)
        return batch

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def take(self, kind: str, value: Any) -> bool:
        """A delivery from the client; True when it is the last."""
        match kind:
            case "created":
                self._created = True
                self._source.took(self._number)
            case "batch":
                self._queue.append(batch_of(value))
            case "compacted":
                self._error = Compacted(value[0], header=Header(*value[1]))
            case _:
                self._error = of_status(*value)
        self._changed.set()
        return self._error is not None

    def fail(self, error: StoreError) -> None:
        """End the watch with an error."""
        self._error = self._error or error
        self._changed.set()


def batch_of(value: Any) -> WatchBatch:
    """A native batch as values."""
    revision, events, header = value
    return WatchBatch(
        revision,
        tuple(Event(kind, KeyValue(*kv), None if prev is None else KeyValue(*prev)) for kind, kv, prev in events),
        Header(*header),
    )
