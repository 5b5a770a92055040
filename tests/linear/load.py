"""Clients that do random operations on a few keys at every member, and watchers; all that they did and saw is kept."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from typing import Any

from kvstore.client import Client, prefix_end
from kvstore.errors import StoreError, Unavailable
from kvstore.model import Compare, Event, KeyValue, Op, RangeResult
from tests.linear.history import Change, Kind, Operation, Outcome, Version

PREFIX = b"k/"
KEYS = 5
CLIENTS_PER_MEMBER = 4
TIMEOUT_S = 0.8
"""Of one operation: after it its outcome is unknown."""
PAUSE_S = 0.015
"""At most so long, a client pauses between two operations."""
KINDS: tuple[Kind, ...] = ("put", "get", "swap", "delete", "stale")
WEIGHTS = (25, 30, 25, 8, 12)
CATCH_UP_S = 30.0


@dataclass
class Answer:
    """What came back."""

    revision: int
    seen: Version | None
    changed: bool = False


@dataclass
class Load:
    """Everything in one event loop. `urls` are by member."""

    urls: dict[str, str]
    seed: int
    operations: list[Operation] = field(default_factory=list)
    watched: dict[str, list[Change]] = field(default_factory=dict)
    stopping: bool = False
    errors: dict[str, int] = field(default_factory=dict)
    last_write_began: int = 0
    """When the newest of the acknowledged writes began."""

    @property
    def answered(self) -> int:
        """Operations that were answered so far."""
        return sum(one.outcome == "ok" for one in self.operations)

    async def run(self) -> None:
        """Work until `stopping`."""
        async with asyncio.TaskGroup() as tasks:
            number = 0
            for _ in range(CLIENTS_PER_MEMBER):
                for member in self.urls:
                    tasks.create_task(self._work(number, member))
                    number += 1

    async def _work(self, number: int, member: str) -> None:
        rand = random.Random(f"{self.seed}/{number}")
        last: dict[str, str | None] = {}
        count = 0
        async with Client([self.urls[member]], timeout=TIMEOUT_S) as client:
            while not self.stopping:
                count += 1
                kind = rand.choices(KINDS, WEIGHTS)[0]
                key = f"k/{rand.randrange(KEYS)}"
                value = f"{number}.{count}" if kind in ("put", "swap") else ""
                expect = last.get(key) if kind == "swap" else None
                outcome: Outcome = "ok"
                answer, start = Answer(0, None), time.monotonic_ns()
                try:
                    answer = await _do(client, kind, key, value, expect)
                except StoreError as error:
                    outcome = "unknown" if isinstance(error, Unavailable) else "failed"
                    text = f"{error.code}: {error.message}"[:80]
                    self.errors[text] = self.errors.get(text, 0) + 1
                self._keep(
                    Operation(
                        *(number, member, kind, key, start, time.monotonic_ns(), outcome),
                        *(value, expect, answer.revision, answer.seen, answer.changed),
                    )
                )
                if outcome == "ok":
                    last[key] = (
                        value if answer.changed and value else None if answer.seen is None else answer.seen.value
                    )
                await asyncio.sleep(rand.uniform(0, PAUSE_S))

    def _keep(self, one: Operation) -> None:
        self.operations.append(one)
        if one.outcome == "ok" and one.changed:
            self.last_write_began = max(self.last_write_began, one.start)

    async def watch(self, name: str, urls: list[str], until: asyncio.Future[int]) -> None:
        """Watch all keys from the beginning, across every fault, until the revision that `until` will tell."""
        kept = self.watched.setdefault(name, [])
        async with Client(urls, timeout=TIMEOUT_S) as client:
            await follow(client, kept, until)


async def follow(client: Client, kept: list[Change], until: asyncio.Future[int]) -> None:
    """Keep all changes of a watch until a revision."""
    async with client.watch(PREFIX, range_end=prefix_end(PREFIX), start_revision=1) as watch:

        async def take() -> None:
            async for batch in watch:
                kept.extend(_change(event) for event in batch.events)

        taking = asyncio.create_task(take())
        either: set[asyncio.Future[Any]] = {taking, until}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            end = time.monotonic() + CATCH_UP_S
            while not taking.done() and (not kept or kept[-1].revision < until.result()) and time.monotonic() < end:
                await asyncio.sleep(0.02)
            if taking.done():
                await taking
        finally:
            taking.cancel()


async def log_of(url: str, revision: int) -> tuple[Change, ...]:
    """All changes up to a revision, as a member has them."""
    known: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    known.set_result(revision)
    kept: list[Change] = []
    async with Client([url], timeout=TIMEOUT_S) as client:
        await follow(client, kept, known)
    return tuple(one for one in kept if one.revision <= revision)


async def _do(client: Client, kind: Kind, key: str, value: str, expect: str | None) -> Answer:
    name = key.encode()
    match kind:
        case "put":
            put = await client.put(name, value.encode(), prev_kv=True)
            return Answer(put.header.revision, _version(put.prev), True)
        case "delete":
            gone = await client.delete(name, prev_kv=True)
            return Answer(gone.header.revision, _version(next(iter(gone.prev), None)), gone.deleted > 0)
        case "swap":
            held = Compare.version(name, "=", 0) if expect is None else Compare.value(name, "=", expect.encode())
            done = await client.txn([held], [Op.put(name, value.encode())], [Op.get(name)])
            if done.succeeded:
                return Answer(done.header.revision, None, True)
            read = done.responses[0]
            assert isinstance(read, RangeResult)
            return Answer(done.header.revision, _version(next(iter(read.kvs), None)))
        case _:
            found = await client.get(name, serializable=kind == "stale")
            return Answer(found.header.revision, _version(next(iter(found.kvs), None)))


def _version(kv: KeyValue | None) -> Version | None:
    return None if kv is None else Version(kv.value.decode(), kv.create_revision, kv.mod_revision, kv.version)


def _change(event: Event) -> Change:
    version = _version(event.kv) if event.type == "put" else None
    return Change(event.kv.mod_revision, event.kv.key.decode(), version)
