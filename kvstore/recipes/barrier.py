"""A barrier that holds everybody up until it is lifted. Its key is that of etcd's `recipe.Barrier`."""

from __future__ import annotations

import asyncio
import secrets
from types import TracebackType

from kvstore.client import Client
from kvstore.errors import Unavailable
from kvstore.model import Compare, Op, RangeResult
from kvstore.recipes import waiting
from kvstore.recipes.errors import BarrierHeld, InDoubt
from kvstore.recipes.once import Once

PATIENCE_S = 30.0
"""How long `hold` goes on asking a store that does not answer."""


class Barrier:
    """While the barrier is held, `wait` waits. In `async with` it is held for the body.

    Guarantees: `wait` returns only when the barrier was not there at a moment after the call, and every waiter of a
    barrier that is released returns, also when it is held anew at once.

    Does not guarantee an end: the key hangs on no lease, so a barrier whose holder died stays until somebody releases
    it. Anybody may release it.

    Source: etcd's `client/v3/experimental/recipes`, Barrier.
    """

    def __init__(self, client: Client, key: bytes) -> None:
        self._client = client
        self._key = key

    async def hold(self) -> None:
        """Put the barrier up. Raises BarrierHeld when it is up. Cancelled, it leaves none."""
        mark = secrets.token_hex(8).encode()
        task = asyncio.create_task(self._hold(mark))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task])
            if task.exception() is None:
                await self._lift([Compare.value(self._key, "=", mark)])
            raise

    async def _hold(self, mark: bytes) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + PATIENCE_S

        def check() -> None:
            if loop.time() > end:
                raise InDoubt(f"The store did not answer for {PATIENCE_S:.0f} s.")

        outcome = await Once(self._client, b"__" + self._key, 0, check).txn(
            [Compare.create(self._key, "=", 0)], [Op.put(self._key, mark)], [Op.get(self._key)], traced=False
        )
        if outcome.succeeded:
            return
        answers = outcome.responses or (await waiting.patiently(lambda: self._client.get(self._key)),)
        # Our own mark: an earlier copy of the request, whose answer was lost, has put it.
        if not any(isinstance(one, RangeResult) and one.kvs and one.kvs[0].value == mark for one in answers):
            raise BarrierHeld(f"The barrier {self._key!r} is up already.")

    async def release(self) -> None:
        """Lift the barrier, whoever put it up; all who wait go on."""
        found = await waiting.patiently(lambda: self._client.get(self._key))
        if found.kvs:
            # Sent again it lifts no barrier that was put up meanwhile.
            await self._lift([Compare.create(self._key, "=", found.kvs[0].create_revision)])

    async def _lift(self, while_: list[Compare]) -> None:
        while True:
            try:
                await self._client.txn(while_, [Op.delete(self._key)])
            except Unavailable:
                await waiting.pause()
                continue
            return

    async def wait(self) -> None:
        """Return once the barrier is not up."""
        while True:
            found = await waiting.patiently(lambda: self._client.get(self._key))
            if not found.kvs or await waiting.gone(self._client, self._key, found.header.revision + 1):
                return

    async def __aenter__(self) -> Barrier:
        await self.hold()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.release()
