"""Optimistic transactions: a function reads and writes keys as if it were alone, and is run again when it was not.

Source: etcd's `clientv3/concurrency.STM`, whose isolation levels these are. The read set and what it is checked for at
the commit are the same, so Go programs and these may work on the same keys.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from kvstore.client import Client
from kvstore.errors import Compacted, FutureRevision
from kvstore.model import Compare, KeyValue, Op, RangeResult
from kvstore.recipes import waiting
from kvstore.recipes.errors import Conflict
from kvstore.recipes.session import Session

T = TypeVar("T")

ATTEMPTS = 1000
"""How often a transaction is tried that others conflict with each time."""
RECEIPTS = b"__stm"


class Isolation(enum.Enum):
    """What a transaction sees of others, from the strictest on."""

    SERIALIZABLE_SNAPSHOT = enum.auto()
    """As SERIALIZABLE, and nothing that is written was changed since the first read, read or not."""
    SERIALIZABLE = enum.auto()
    """All reads of an attempt are of the revision of its first; none was changed until the commit."""
    REPEATABLE_READS = enum.auto()
    """A key that is read twice is the same twice, and none was changed until the commit; but an attempt that will be
    repeated may see keys of different revisions together."""
    READ_COMMITTED = enum.auto()
    """Reads are of any committed revision, and the commit checks nothing: writes happen together, that is all."""


class _Restart(Exception):
    """The attempt can't go on, since history that it reads is gone."""


class Transaction:
    """One attempt: what `transact` hands to the function. Not to be kept after it."""

    def __init__(self, client: Client, isolation: Isolation, base: int, fetched: dict[bytes, RangeResult]) -> None:
        self._client = client
        self._isolation = isolation
        self._snapshot = isolation in (Isolation.SERIALIZABLE_SNAPSHOT, Isolation.SERIALIZABLE)
        self._base = base if self._snapshot else 0
        """The revision of all reads; 0 until the first, or when each may have its own."""
        self._fetched = fetched
        self._reads: dict[bytes, KeyValue | None] = {}
        self._writes: dict[bytes, Op] = {}

    async def get(self, key: bytes) -> bytes | None:
        """A key's value, None when it is not there. What the transaction itself wrote is seen."""
        if (write := self._writes.get(key)) is not None:
            return write.value if write.kind == "put" else None
        kv = await self._read(key)
        return None if kv is None else kv.value

    async def revision(self, key: bytes) -> int:
        """The revision of a key's last change by anybody else, 0 when it is not there."""
        kv = await self._read(key)
        return 0 if kv is None else kv.mod_revision

    def put(self, key: bytes, value: bytes, *, lease: int = 0) -> None:
        """Set a key at the commit."""
        self._writes[key] = Op.put(key, value, lease)

    def delete(self, key: bytes) -> None:
        """Delete a key at the commit, if it is there."""
        self._writes[key] = Op.delete(key)

    async def _read(self, key: bytes) -> KeyValue | None:
        if key not in self._reads:
            found = self._fetched.get(key) or await self._fetch(key)
            if self._snapshot and not self._base:
                self._base = found.header.revision
            self._reads[key] = found.kvs[0] if found.kvs else None
        return self._reads[key]

    async def _fetch(self, key: bytes) -> RangeResult:
        base = self._base
        try:
            if base:
                try:
                    # Any member that has this revision answers by itself.
                    return await waiting.patiently(lambda: self._client.get(key, revision=base, serializable=True))
                except FutureRevision:
                    pass
            return await waiting.patiently(lambda: self._client.get(key, revision=base))
        except Compacted:
            raise _Restart from None

    def _compares(self) -> list[Compare]:
        if self._isolation is Isolation.READ_COMMITTED:
            return []
        compares = [Compare.mod(key, "=", kv.mod_revision if kv else 0) for key, kv in self._reads.items()]
        if self._isolation is Isolation.SERIALIZABLE_SNAPSHOT and self._base:
            unread = self._writes.keys() - self._reads.keys()
            compares += [Compare.mod(key, "<", self._base + 1) for key in unread]
        return compares


async def transact(
    session: Session,
    body: Callable[[Transaction], Awaitable[T]],
    *,
    isolation: Isolation = Isolation.SERIALIZABLE_SNAPSHOT,
    prefetch: Iterable[bytes] = (),
    attempts: int = ATTEMPTS,
    receipts: bytes = RECEIPTS,
) -> T:
    """Run `body` and commit what it wrote, all at one revision; again while others interfere. Returns what it returned.

    Guarantees: what an `isolation` says, and that the writes of a transaction that returned happened once, those of one
    that raised not at all. From SERIALIZABLE on all transactions are as if one ran after the other, those that only
    read included: no lost update, no write skew.

    Does not guarantee that `body` runs once: it must do nothing that can't be done again. After InDoubt or a
    cancellation the writes happened once or not at all. Keys changed by other means than such transactions are seen,
    but who changes them without comparing is not held back.

    `prefetch` names keys to read in one request. At most 127 keys are read, and as many written, in one transaction;
    `receipts` is where it keeps its leased receipts, for users who may not write everywhere. Raises Conflict after so
    many `attempts`, SessionLost, InDoubt, or StoreError.
    """
    fetched, base = await _fetched(session.client, prefetch)
    for _ in range(attempts):
        transaction = Transaction(session.client, isolation, base, fetched)
        try:
            result = await body(transaction)
        except _Restart:
            fetched, base = {}, 0
            continue
        done, answers = await _commit(session, transaction, receipts)
        if done:
            return result
        fetched = dict(zip(transaction._reads, answers, strict=True)) if answers else {}
        base = answers[0].header.revision if answers else 0
    raise Conflict(f"Others changed what the transaction had read, {attempts} times in a row.")


async def _fetched(client: Client, keys: Iterable[bytes]) -> tuple[dict[bytes, RangeResult], int]:
    """Keys as they are at one revision, and that revision."""
    if not (wanted := list(dict.fromkeys(keys))):
        return {}, 0
    done = await waiting.patiently(lambda: client.txn([], [Op.get(key) for key in wanted]))
    return dict(zip(wanted, _ranges(done.responses), strict=True)), done.header.revision


async def _commit(session: Session, transaction: Transaction, receipts: bytes) -> tuple[bool, list[RangeResult]]:
    """Whether it is committed; if not, what was read as it is now, if that is known."""
    compares = transaction._compares()
    writes = list(transaction._writes.values())
    again = [Op.get(key) for key in transaction._reads]
    if writes:
        outcome = await session.once(receipts).txn(compares, writes, again)
        return outcome.succeeded, _ranges(outcome.responses or ())
    if not compares:
        return True, []
    # It only reads: to ask again changes nothing.
    done = await waiting.patiently(lambda: session.client.txn(compares, [], again))
    return done.succeeded, _ranges(done.responses)


def _ranges(answers: Iterable[object]) -> list[RangeResult]:
    return [one for one in answers if isinstance(one, RangeResult)]
