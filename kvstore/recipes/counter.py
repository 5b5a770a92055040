"""A number that many add to. Its key holds it as decimal text."""

from __future__ import annotations

import asyncio

from kvstore.model import Compare, KeyValue, Op, RangeResult
from kvstore.recipes import waiting
from kvstore.recipes.errors import UnreadableValue
from kvstore.recipes.session import Session


class Counter:
    """Use as `await Counter(session, b"key").add(1)`.

    Guarantees: an `add` that returned was counted once, and what it returns was the number right after it: of any two
    adds of 1 no two return the same. One that raised SessionLost or StoreError was not counted; one that was cancelled
    or raised InDoubt was counted once or not at all, and is never counted twice. The number stays when sessions end.

    Does not guarantee order between adds of different callers, nor speed: each add is a write of its own to one key,
    and adds from different processes at the same moment are tried again until it is their turn.
    """

    def __init__(self, session: Session, key: bytes) -> None:
        self._client = session.client
        self._key = key
        self._once = session.once(b"__" + key)
        self._known: tuple[int, int] | None = None
        """The number as we saw it last, and the key's revision then."""
        self._adding = asyncio.Lock()

    async def add(self, amount: int = 1) -> int:
        """Add to the number, which begins at 0; returns what it is then. Raises UnreadableValue for other text."""
        # Tasks that share this object take turns, instead of being in each other's way at the store.
        async with self._adding:
            while True:
                number, revision = self._known or await self._read()
                self._known = None
                outcome = await self._once.txn(
                    [Compare.mod(self._key, "=", revision)],
                    [Op.put(self._key, b"%d" % (number + amount))],
                    [Op.get(self._key)],
                )
                if outcome.succeeded:
                    self._known = (number + amount, outcome.revision)
                    return number + amount
                if outcome.responses and isinstance(outcome.responses[0], RangeResult):
                    self._known = self._parse(outcome.responses[0].kvs)

    async def value(self) -> int:
        """The number now, by a linearizable read."""
        return (await self._read())[0]

    async def _read(self) -> tuple[int, int]:
        return self._parse((await waiting.patiently(lambda: self._client.get(self._key))).kvs)

    def _parse(self, kvs: tuple[KeyValue, ...]) -> tuple[int, int]:
        if not kvs:
            return 0, 0
        try:
            return int(kvs[0].value), kvs[0].mod_revision
        except ValueError:
            raise UnreadableValue(f"The key {self._key!r} holds {kvs[0].value[:40]!r}, which is no number.") from None
