"""Queues that many put into and many take from. Keys are those of etcd's `recipe.Queue` and `recipe.PriorityQueue`, so
Go programs may use the same queue.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque

from kvstore.client import prefix_end
from kvstore.model import Compare, KeyValue, Op, RangeResult, Sort
from kvstore.recipes import waiting
from kvstore.recipes.errors import UnreadableValue
from kvstore.recipes.once import Outcome
from kvstore.recipes.session import Session

MAX_PRIORITY = 65535
"""The least urgent; etcd's recipe has 16 bits for it."""
HEADS = 16
"""How many items are read at a time: the store looks at all to find the oldest."""


class _Taking:
    """What takes items from under a name, in some order."""

    _order: Sort
    _lasting: bool
    """Whether items that come are behind those that are there: then what was read is still next, if it is there."""

    def __init__(self, session: Session, name: bytes) -> None:
        self._session = session
        self._client = session.client
        self._prefix = name + b"/"
        self._once = session.once(b"__" + name)
        self._getting = asyncio.Lock()
        self._heads: deque[KeyValue] = deque()

    async def get(self) -> bytes:
        """Take the next item; waits while there is none. Raises SessionLost, or StoreError when the store refuses.

        Cancelled, it has taken nothing: an item that was just being handed over goes back.
        """
        # Tasks that share this object would all reach for the same item.
        async with self._getting, self._session.guarded():
            if not self._lasting:
                self._heads.clear()
            while True:
                while self._heads:
                    item = self._heads.popleft()
                    if await self._take(item):
                        return item.value
                    self._heads.clear()  # others take too: what we know is old
                found = await self._read()
                self._heads.extend(found.kvs)
                if not found.kvs:
                    await waiting.put_under(self._client, self._prefix, found.header.revision + 1)

    async def _read(self) -> RangeResult:
        """The next items."""
        end = prefix_end(self._prefix)
        return await waiting.patiently(
            lambda: self._client.get(self._prefix, range_end=end, sort=self._order, limit=HEADS)
        )

    async def _take(self, item: KeyValue) -> bool:
        async def back(outcome: Outcome) -> None:
            if outcome.succeeded:
                await self._once.txn([Compare.create(item.key, "=", 0)], [Op.put(item.key, item.value)])

        claim = self._once.txn([Compare.mod(item.key, "=", item.mod_revision)], [Op.delete(item.key)])
        return (await self._session.undoable(item.key, claim, back)).succeeded

    async def size(self) -> int:
        """How many items are in the queue, by a linearizable read."""
        found = await waiting.patiently(
            lambda: self._client.get(self._prefix, range_end=prefix_end(self._prefix), count_only=True)
        )
        return found.count


class Queue(_Taking):
    """First in, first out: `Queue(session, b"name")`.

    Guarantees: `put` that returned has put the item once; each item is handed out to one `get`, once, the oldest first
    (of several takers each takes the oldest that the others left). Answers that get lost change nothing of this.

    Does not guarantee that an item is worked on: it is out of the queue before `get` returns, and is lost with a taker
    that dies then. A `put` that was cancelled, or raised InDoubt, has put the item once or not at all. An item that
    goes back, since its `get` was cancelled, goes to the end.

    Source: etcd's `client/v3/experimental/recipes`, Queue.
    """

    _order = ("mod", False)
    _lasting = True

    async def put(self, value: bytes) -> None:
        """Add an item. Raises SessionLost (not added), InDoubt, or StoreError when the store refuses."""
        key = b"%s%d-%s" % (self._prefix, time.time_ns(), secrets.token_hex(4).encode())
        await self._once.txn([], [Op.put(key, value)])


class PriorityQueue(_Taking):
    """The lowest priority number first, and of one priority the oldest: `PriorityQueue(session, b"name")`.

    Guarantees and does not guarantee what Queue does, but that an item that goes back keeps its place. A taker may get
    an item although a more urgent one was put while it was taking.

    Source: etcd's `client/v3/experimental/recipes`, PriorityQueue.
    """

    _order = ("key", False)
    _lasting = False

    def __init__(self, session: Session, name: bytes) -> None:
        super().__init__(session, name)
        self._putting = asyncio.Lock()

    async def put(self, value: bytes, priority: int) -> None:
        """Add an item; 0 is the most urgent, 65535 the least. Raises as `Queue.put`, or ValueError."""
        if not 0 <= priority <= MAX_PRIORITY:
            raise ValueError(f"A priority is a number from 0 to {MAX_PRIORITY}, not {priority}.")
        stem = b"%s%05d" % (self._prefix, priority)
        async with self._putting:
            while not await self._append(stem, value):
                pass  # another one appended meanwhile: the number is taken

    async def _append(self, stem: bytes, value: bytes) -> bool:
        last = await waiting.patiently(
            lambda: self._client.get(
                stem + b"/", range_end=prefix_end(stem + b"/"), sort=("key", True), limit=1, keys_only=True
            )
        )
        number = _number(last.kvs[0].key) + 1 if last.kvs else 0
        # The base key changes with each append. Without it a number could be given twice: the last item may be taken.
        base = b"__" + stem
        unchanged = Compare.mod(base, "<", last.header.revision + 1)
        item = Op.put(b"%s/%016d" % (stem, number), value)
        return (await self._once.txn([unchanged], [Op.put(base), item])).succeeded


def _number(key: bytes) -> int:
    tail = key.rpartition(b"/")[2]
    if not tail.isdigit():
        raise UnreadableValue(f"The key {key!r} is none that a priority queue makes.")
    return int(tail)
