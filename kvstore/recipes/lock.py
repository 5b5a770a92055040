"""A mutex over the cluster, with a token that protects what is outside the store. Keys are those of `etcdctl lock` and
Go's `concurrency.Mutex`, which may contend for the same name.
"""

from __future__ import annotations

from types import TracebackType

from kvstore.model import Compare
from kvstore.recipes.contender import Contender
from kvstore.recipes.session import Session


class Lock:
    """Use as `async with Lock(session, b"name") as lock`.

    Guarantees: of all sessions one holds the lock at a time as the store sees it, in the order of coming; a holder's
    death frees it when its lease ends. Tasks that share a session take turns too. A body in `async with` is
    interrupted with SessionLost when the session is lost. An acquire that fails or is cancelled leaves no key behind.

    Does not guarantee that a body stops in time: a holder that was stopped for longer than its TTL, or whose write is
    long on its way, acts while another one holds. A lock alone protects nothing outside the store. So:
    in the store, put `fence` into every transaction; elsewhere, send `token` along, and let the receiver refuse a token
    smaller than the greatest it has seen.

    Source: etcd's `clientv3/concurrency.Mutex`; "Notes on the usage of lock and lease" in etcd's documentation.
    """

    def __init__(self, session: Session, name: bytes) -> None:
        self._session = session
        self._contender = Contender(session, name)
        self._turn = session.turn(name)
        self._guard = session.guarded()
        self._held = False

    @property
    def key(self) -> bytes:
        """Our key under the lock's name."""
        return self._contender.key

    @property
    def token(self) -> int:
        """The fencing token: greater for each later holder. 0 while the lock is not held."""
        return self._contender.revision if self._held else 0

    @property
    def fence(self) -> Compare:
        """A comparison for transactions that holds only while the lock is ours."""
        return self._contender.fence

    async def acquire(self) -> None:
        """Wait for the lock. Raises SessionLost, or StoreError when the store refuses."""
        await self._turn.acquire()
        try:
            async with self._session.guarded():
                if not await self._contender.join(b""):
                    await self._contender.until_first()
        except BaseException:
            self._turn.release()
            raise
        self._held = True

    async def try_acquire(self) -> bool:
        """Take the lock if nobody holds it or waits for it; says whether it was taken."""
        if self._turn.locked():
            return False
        await self._turn.acquire()
        try:
            async with self._session.guarded():
                self._held = await self._contender.join(b"")
                if not self._held:
                    await self._contender.leave()
        finally:
            if not self._held:
                self._turn.release()
        return self._held

    async def release(self) -> None:
        """Give the lock up. Nothing happens when it is not held, or was lost with the session."""
        if not self._held:
            return
        self._held = False
        try:
            await self._contender.leave()
        finally:
            self._turn.release()

    async def __aenter__(self) -> Lock:
        await self.acquire()
        self._guard = self._session.guarded()
        try:
            await self._guard.__aenter__()
        except BaseException:
            await self.release()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._guard.__aexit__(kind, error, trace)
        finally:
            await self.release()
