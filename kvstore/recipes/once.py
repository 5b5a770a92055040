"""Writes that happen once although answers get lost. A copy of a transaction that nobody answered may still be on its
way and be applied much later, so sending it again needs more than looking whether it has happened.

Each transaction compares a receipt, a leased key that only this process writes, and writes it: the first copy that the
store applies decides, and notes its verdict there; every other copy finds the receipt changed and does nothing.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from kvstore.client import Client
from kvstore.errors import LeaseNotFound, StoreError, Unavailable
from kvstore.model import Compare, Op, RangeResult, TxnResult
from kvstore.recipes.errors import InDoubt, SessionLost
from kvstore.recipes.waiting import RETRY_S

MAX_RECEIPTS = 64
"""How many transactions of one place run at a time; more wait."""
YES, NO = b"+", b"-"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a transaction went: which branch ran, and at which revision. `responses` are those of the branch's
    operations, or None when the answer that had them was lost."""

    succeeded: bool
    revision: int
    responses: tuple[object, ...] | None


@dataclass(slots=True)
class _Receipt:
    key: bytes
    revision: int = 0
    """Of its last write that we know of; 0 while it is not there."""


class Once:
    """Transactions whose receipts lie under `place`, on `lease` (0: they stay). `check` raises when to give up, `spawn`
    makes a task that somebody will wait for."""

    def __init__(
        self,
        client: Client,
        place: bytes,
        lease: int,
        check: Callable[[], None],
        spawn: Callable[[Coroutine[Any, Any, Outcome]], asyncio.Task[Outcome]] = asyncio.create_task,
    ) -> None:
        self._client = client
        self._place = place
        self._lease = lease
        self._check = check
        self._spawn = spawn
        self._free: list[_Receipt] = []
        self._limit = asyncio.Semaphore(MAX_RECEIPTS)

    async def txn(
        self, compare: Sequence[Compare], success: Sequence[Op], failure: Sequence[Op] = (), *, traced: bool = True
    ) -> Outcome:
        """Run a transaction once. One that is not `traced` leaves no receipt unless an answer is lost: then either
        branch may run again, so its comparisons must fail, and its failure branch tell, once it has happened.

        Raises SessionLost (nothing happened), InDoubt, or the store's error. Cancelled before it began, it does not
        happen; later, it goes on alone.
        """
        async with self._limit:
            work = self._with_receipt(tuple(compare), tuple(success), tuple(failure), traced)
            task = self._spawn(work)
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                own = asyncio.current_task()
                if task.cancelled() and own is not None and not own.cancelling():  # the session was closed under it
                    raise InDoubt("It may have happened or not: the session was closed.") from None
                raise

    async def _with_receipt(
        self, compare: tuple[Compare, ...], success: tuple[Op, ...], failure: tuple[Op, ...], traced: bool
    ) -> Outcome:
        receipt = self._free.pop() if self._free else _Receipt(self._place + b"/receipts/" + _token())
        outcome = await self._settle(receipt, compare, success, failure, traced)
        self._free.append(receipt)  # one whose transaction is in doubt is used no more
        return outcome

    async def _settle(
        self,
        receipt: _Receipt,
        compare: tuple[Compare, ...],
        success: tuple[Op, ...],
        failure: tuple[Op, ...],
        traced: bool,
    ) -> Outcome:
        untouched = Compare.mod(receipt.key, "=", receipt.revision)
        self._check()
        if not traced and receipt.revision == 0:
            try:
                done = await self._client.txn([untouched, *compare], success, failure)
                return Outcome(done.succeeded, done.header.revision, done.responses)
            except LeaseNotFound as error:
                raise SessionLost(f"Lease {self._lease:x} has ended.") from error
            except Unavailable:
                pass  # it may have happened
            return await self._decide(receipt, untouched, (compare, success, failure), doubt=True)
        return await self._decide(receipt, untouched, (compare, success, failure), doubt=False)

    async def _decide(
        self,
        receipt: _Receipt,
        untouched: Compare,
        wish: tuple[tuple[Compare, ...], tuple[Op, ...], tuple[Op, ...]],
        *,
        doubt: bool,
    ) -> Outcome:
        """Send a transaction that notes its verdict until one copy is answered."""
        compare, success, failure = wish
        mark = _token()
        noted = [Op.put(receipt.key, verdict + mark, lease=self._lease) for verdict in (YES, NO)]
        deciding = Op.txn(compare, (*success, noted[0]), (*failure, noted[1]))
        while True:
            try:
                if doubt:
                    await asyncio.sleep(RETRY_S)
                    self._check()
                done = await self._client.txn([untouched], [deciding], [Op.get(receipt.key)])
            except Unavailable:
                doubt = True
                continue
            except (StoreError, SessionLost) as error:
                if doubt:
                    raise InDoubt(f"It may have happened or not: {error}") from error
                if isinstance(error, LeaseNotFound):
                    raise SessionLost(f"Lease {self._lease:x} has ended.") from error
                raise
            return self._verdict(receipt, mark, done, doubt)

    def _verdict(self, receipt: _Receipt, mark: bytes, done: TxnResult, doubt: bool) -> Outcome:
        answer = done.responses[0]
        if isinstance(answer, TxnResult):
            receipt.revision = done.header.revision
            return Outcome(answer.succeeded, done.header.revision, answer.responses[:-1])
        assert isinstance(answer, RangeResult)
        if not answer.kvs or answer.kvs[0].value[1:] != mark:
            words = f"The receipt {receipt.key!r} is gone or was written by another: has lease {self._lease:x} ended?"
            raise InDoubt(words) if doubt else SessionLost(words)
        noted = answer.kvs[0]
        receipt.revision = noted.mod_revision
        return Outcome(noted.value[:1] == YES, noted.mod_revision, None)


def _token() -> bytes:
    return secrets.token_hex(8).encode()
