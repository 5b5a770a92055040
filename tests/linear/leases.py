"""Leases that are granted, renewed for a while and left to end, and when they were seen to have ended.

A lease may not end before its TTL is over since the last renewal that was acknowledged: counted from when that was
asked for, since the store renews no earlier. They have no keys: those would be changes that no client made.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from kvstore.client import Client
from kvstore.errors import StoreError

TTL_S = 2
TIMEOUT_S = 0.8
POLL_S = 0.05
PATIENCE_S = 12.0
"""A lease that is there for so long after its TTL is given up."""
SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Held:
    """A lease that was held. Times are CLOCK_MONOTONIC nanoseconds."""

    member: str
    ttl: int
    renewed: int
    """When the last renewal that was acknowledged, or the grant, was asked for."""
    touched: int
    """When the last attempt to renew it was over, whatever became of it."""
    ended: int
    """When it was known to have ended; 0 when it was given up before."""


@dataclass
class Leases:
    """Holders, one at each member."""

    urls: dict[str, str]
    seed: int
    held: list[Held] = field(default_factory=list)
    stopping: bool = False

    async def run(self) -> None:
        """Hold leases until `stopping`."""
        async with asyncio.TaskGroup() as tasks:
            for member in self.urls:
                tasks.create_task(self._work(member))

    async def _work(self, member: str) -> None:
        rand = random.Random(f"leases/{self.seed}/{member}")
        async with Client([self.urls[member]], timeout=TIMEOUT_S) as client:
            while not self.stopping:
                try:
                    await self._hold(client, member, rand)
                except StoreError:
                    await asyncio.sleep(POLL_S)

    async def _hold(self, client: Client, member: str, rand: random.Random) -> None:
        renewed = time.monotonic_ns()
        granted = await client.lease_grant(TTL_S)
        touched = time.monotonic_ns()
        for _ in range(rand.randrange(3)):
            await asyncio.sleep(rand.uniform(0.2, 0.7) * granted.ttl)
            asked = time.monotonic_ns()
            with contextlib.suppress(StoreError):
                await client.lease_keepalive(granted.id)
                renewed = asked
            touched = time.monotonic_ns()
        end = time.monotonic() + granted.ttl + PATIENCE_S
        ended = 0
        while not ended and time.monotonic() < end:
            if self.stopping:
                return
            await asyncio.sleep(POLL_S)
            with contextlib.suppress(StoreError):
                if (await client.lease_time_to_live(granted.id)).ttl < 0:
                    ended = time.monotonic_ns()
        self.held.append(Held(member, granted.ttl, renewed, touched, ended))


def check(held: Iterable[Held], late_s: float | None = None) -> list[str]:
    """Say which ended too early; and with `late_s` which were there for longer than that after their TTL."""
    wrong = []
    for one in held:
        early = one.renewed + one.ttl * SECOND - one.ended
        if one.ended and early > 0:
            wrong.append(f"a lease ended {early / SECOND:.3f} s too early: {one}")
        late = one.ended - one.touched - one.ttl * SECOND
        if late_s is not None and (not one.ended or late > late_s * SECOND):
            wrong.append(f"a lease ended too late, {late / SECOND:.3f} s after its TTL: {one}")
    return wrong
