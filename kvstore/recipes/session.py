"""A session: a lease that is kept alive while its holder lives, the identity of a participant in every recipe.

Source: etcd's `clientv3/concurrency.Session`. Keys that hang on the session's lease vanish when it ends. What is more
here: the session says by its own clock when its lease may have ended, interrupts bodies that relied on it, and finishes
clean-ups of cancelled calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVar

from kvstore.client import Client
from kvstore.errors import LeaseExists, LeaseNotFound, StoreError, Unavailable
from kvstore.recipes.errors import RecipeError, SessionLost
from kvstore.recipes.once import Once
from kvstore.recipes.waiting import RETRY_S

T = TypeVar("T")

DEFAULT_TTL_S = 60
"""etcd's default for sessions."""
RENEWALS_PER_TTL = 3
CLEAN_UP_S = 2.0
"""How long a cancelled call waits for its clean-up; after that the session goes on with it alone."""
CLOSE_S = 5.0
"""How long closing waits for clean-ups, and then for the store to end the lease."""


def now() -> float:
    """Seconds that also pass while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Session:
    """Use as `async with Session(client, ttl=10) as session`; one per event loop, shared by any number of recipes.

    Guarantees: while `alive` is true the store has not expired the lease, as long as clocks run at the same speed:
    the TTL counts from before the last answered renewal was sent. When it runs out, or the store says that the lease is
    gone, `lost` is set and every `guarded` body is interrupted with SessionLost; a lost session stays lost.
    Does not guarantee: that a body stops in time. A process that is stopped, or does not return to its event loop, acts
    on after its lease has ended; only a fence or a token (see Lock) protects against that.

    `ttl` is in seconds (the store may make it longer). With `lease` an existing lease is taken over, after a restart
    for example; its TTL stays what it is.
    """

    def __init__(self, client: Client, *, ttl: int = DEFAULT_TTL_S, lease: int = 0) -> None:
        self.client = client
        self.lost = asyncio.Event()
        """Set when the lease is gone or may be, or the session was closed."""
        self._ttl = ttl
        self._resumed = lease
        self._lease = 0
        self._deadline = 0.0
        self._why = ""
        self._keeping: asyncio.Task[None] | None = None
        self._working: set[asyncio.Task[Any]] = set()
        self._cleaning: dict[bytes, asyncio.Task[None]] = {}
        self._guards: set[Guard] = set()
        self._onces: dict[bytes, Once] = {}
        self._turns: weakref.WeakValueDictionary[bytes, asyncio.Lock] = weakref.WeakValueDictionary()

    @property
    def lease(self) -> int:
        """The lease's id. Raises SessionLost before the session is open."""
        if not self._lease:
            raise SessionLost("The session is not open: use it in `async with`.")
        return self._lease

    @property
    def alive(self) -> bool:
        """Whether the lease certainly has not expired, by the clock of this very moment."""
        return bool(self._lease) and not self.lost.is_set() and now() < self._deadline

    def check(self) -> None:
        """Raise SessionLost unless alive."""
        if not self.alive:
            raise SessionLost(self._why or f"Lease {self._lease:x} was not renewed for its TTL of {self._ttl} s.")

    async def __aenter__(self) -> Session:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Get the lease and begin to keep it. Raises SessionLost when the lease to take over is gone, or StoreError."""
        begun = now()
        if self._resumed:
            try:
                self._ttl = (await self.client.lease_keepalive(self._resumed)).ttl
            except LeaseNotFound as error:
                raise SessionLost(f"Lease {self._resumed:x} has ended.") from error
            self._lease = self._resumed
        else:
            await self._grant()
        self._deadline = begun + self._ttl
        self._keeping = asyncio.create_task(self._keep())

    async def _grant(self) -> None:
        # An id of our own: asked for once more after a lost answer, there is still one lease.
        lease = secrets.randbits(62) + 1
        tried = False
        end = now() + self._ttl
        while True:
            try:
                self._ttl = (await self.client.lease_grant(self._ttl, lease)).ttl
            except Unavailable:
                tried = True
                if now() >= end:
                    raise
                await asyncio.sleep(RETRY_S)
                continue
            except LeaseExists:
                if not tried:
                    lease = secrets.randbits(62) + 1
                    continue
            self._lease = lease
            return

    async def _keep(self) -> None:
        pause = self._ttl / RENEWALS_PER_TTL
        while True:
            await asyncio.sleep(max(0.0, min(pause, self._deadline - now())))
            begun = now()
            if begun >= self._deadline:
                return self._lose(f"Lease {self._lease:x} was not renewed for its TTL of {self._ttl} s.")
            try:
                async with asyncio.timeout(self._deadline - begun):
                    self._ttl = (await self.client.lease_keepalive(self._lease)).ttl
            except LeaseNotFound:
                return self._lose(f"Lease {self._lease:x} has expired or was revoked.")
            except (StoreError, TimeoutError):
                pause = RETRY_S
                continue
            self._deadline = begun + self._ttl
            pause = self._ttl / RENEWALS_PER_TTL

    def _lose(self, why: str) -> None:
        if self.lost.is_set():
            return
        self._why = why
        self.lost.set()
        for guard in tuple(self._guards):
            guard.interrupt()

    async def orphan(self) -> None:
        """Stop keeping the lease and leave it to expire, or to another session. The session counts as lost."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        self._lose("The session is closed.")
        for task in self._working:
            task.cancel()
        await asyncio.gather(*self._working, return_exceptions=True)

    async def close(self) -> None:
        """End the lease; the keys that hang on it go. Where the store is away, it expires by itself."""
        if self._working:
            await asyncio.wait(self._working, timeout=CLOSE_S)
        await self.orphan()
        if not self._lease:
            return
        with contextlib.suppress(TimeoutError, LeaseNotFound):
            async with asyncio.timeout(CLOSE_S):
                await self._revoke()

    async def _revoke(self) -> None:
        while True:
            try:
                await self.client.lease_revoke(self._lease)
            except Unavailable:
                await asyncio.sleep(RETRY_S)
                continue
            return

    def guarded(self) -> Guard:
        """For `async with`: a body that is cancelled when the session is lost, and then raises SessionLost."""
        return Guard(self)

    def once(self, place: bytes) -> Once:
        """Writes of this session that happen once; their receipts lie under `place`."""
        if place not in self._onces:
            self._onces[place] = self.writer(place)
        return self._onces[place]

    def writer(self, place: bytes) -> Once:
        """As `once`, for one that is thrown away: it writes receipts only when an answer is lost."""
        return Once(self.client, place, self.lease, self.check, self._spawn)

    def turn(self, name: bytes) -> asyncio.Lock:
        """What makes the tasks of this session take turns: to the store they are one."""
        if (turn := self._turns.get(name)) is None:
            self._turns[name] = turn = asyncio.Lock()
        return turn

    async def settled(self, key: bytes) -> None:
        """Return when no clean-up of a key runs any more."""
        while key in self._cleaning:
            await asyncio.wait([self._cleaning[key]])

    async def undoable(self, key: bytes, work: Coroutine[Any, Any, T], undo: Callable[[T], Awaitable[None]]) -> T:
        """The result of `work`. Cancelled meanwhile, it is finished all the same, and what it did is undone."""
        task = self._spawn(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            with contextlib.suppress(StoreError, RecipeError):  # the cancellation is what counts
                await self.clean_up(key, _undone(task, undo))
            raise

    async def clean_up(self, key: bytes, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` for a key to its end, also when this call is cancelled or takes longer than CLEAN_UP_S."""
        task = self._spawn(work)
        self._cleaning[key] = task
        task.add_done_callback(lambda _: self._cleaned(key, task))
        await asyncio.wait([task], timeout=CLEAN_UP_S)
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            raise error

    def _cleaned(self, key: bytes, task: asyncio.Task[None]) -> None:
        if self._cleaning.get(key) is task:
            del self._cleaning[key]

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._working.add(task)
        task.add_done_callback(self._worked)
        return task

    def _worked(self, task: asyncio.Task[Any]) -> None:
        self._working.discard(task)
        if not task.cancelled():
            task.exception()  # who waited for it has it; of a clean-up that nobody waits for it tells nothing new


async def _undone(task: asyncio.Task[T], undo: Callable[[T], Awaitable[None]]) -> None:
    await asyncio.wait([task])
    if not task.cancelled() and task.exception() is None:
        await undo(task.result())


class Guard:
    """A body that is interrupted when the session is lost; works as `asyncio.timeout` does."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._interrupted = False

    async def __aenter__(self) -> Guard:
        self._session.check()
        self._task = asyncio.current_task()
        assert self._task is not None
        self._cancelling = self._task.cancelling()
        self._session._guards.add(self)
        return self

    def interrupt(self) -> None:
        """Cancel the body, unless it is the body itself that asks."""
        if self._task is not None and self._task is not asyncio.current_task():
            self._interrupted = True
            self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session._guards.discard(self)
        if not self._interrupted or self._task is None:
            return
        if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            self._session.check()
