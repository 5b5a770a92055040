"""kvctl's verbs lock and elect. Keys are those of etcd's client, which may contend for the same name."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from cli.kvctl import gotext
from cli.kvctl.keys import raw, show_result
from cli.kvctl.session import BAD_ARGUMENTS, REFUSED, count, run, whole
from cli.kvctl.show import allow
from cli.output import fail
from kvstore.client import Client, prefix_end
from kvstore.model import Header, KeyValue, RangeResult

if TYPE_CHECKING:
    from kvstore.recipes import Session

T = TypeVar("T")
LockWords = Annotated[list[str] | None, typer.Argument(metavar="NAME [COMMAND]", show_default=False)]
ElectWords = Annotated[list[str] | None, typer.Argument(metavar="NAME [PROPOSAL]", show_default=False)]
Ttl = Annotated[
    int, typer.Option(parser=whole, metavar="SECONDS", help="After which the lock of one that died is free.")
]
LOCK_TTL_S = 10
ELECTION_TTL_S = 60
_MANY = 10_000


class Stop:
    """SIGINT and SIGTERM, which end what is held in good order."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self.asked.set)

    async def before(self, work: Awaitable[T]) -> T:
        """The result of `work`, unless a signal comes first; that ends the program."""
        task = asyncio.ensure_future(work)
        asked = asyncio.create_task(self.asked.wait())
        await asyncio.wait([task, asked], return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if task.done():
            return task.result()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        fail("context canceled")

    async def or_lost(self, session: Session, lost: str) -> None:
        """Wait for a signal; the end of the session ends the program."""
        events = [asyncio.create_task(event.wait()) for event in (self.asked, session.lost)]
        await asyncio.wait(events, return_when=asyncio.FIRST_COMPLETED)
        for event in events:
            event.cancel()
        if not self.asked.is_set():
            fail(lost)


async def _commanded(command: list[str], told: dict[str, str]) -> int:
    """Run a command to its end; signals are its own matter. Returns its exit code, 255 for one that a signal ended."""
    try:
        process = await asyncio.create_subprocess_exec(*command, env={**told, **os.environ}, stdin=subprocess.DEVNULL)
    except OSError as error:
        fail(gotext.not_executed(command[0], error))
    code = await process.wait()
    if code:
        print(f"Error: exit status {code}" if code > 0 else f"Error: signal: {_signal(-code)}", file=sys.stderr)
    return code if code >= 0 else 255


def _signal(number: int) -> str:
    """A signal's name as Go has it."""
    return (signal.strsignal(number) or str(number)).lower()


def lock(
    words: LockWords = None,
    ttl: Ttl = LOCK_TTL_S,
) -> None:
    """Hold a lock until interrupted, or while COMMAND runs, with ETCD_LOCK_KEY and ETCD_LOCK_REV in its environment;
    its exit code is kvctl's."""
    from kvstore.recipes import Lock, Session

    allow("fields", "protobuf")
    message = "lock takes a lock name argument and an optional command to execute"
    name, *command = count(words, 1, _MANY, message)

    async def work(client: Client) -> int:
        stop = Stop()
        async with Session(client, ttl=ttl) as session:
            held = Lock(session, raw(name))
            await stop.before(held.acquire())
            try:
                if command:
                    key = held.key.decode(errors="surrogateescape")
                    return await _commanded(command, {"ETCD_LOCK_KEY": key, "ETCD_LOCK_REV": str(held.token)})
                found = await client.get(held.key)
                if not found.kvs:
                    fail("lock lost on init")
                show_result("RangeResponse", found)
                await stop.or_lost(session, "session expired")
            finally:
                await held.release()
        return 0

    raise SystemExit(run(work, patient=True))


async def _first_put(client: Client, prefix: bytes, since: int) -> tuple[Header, KeyValue]:
    async with client.watch(prefix, range_end=prefix_end(prefix), start_revision=since) as changes:
        async for batch in changes:
            for event in batch.events:
                if event.type == "put" and batch.header is not None:
                    return replace(batch.header, revision=event.kv.mod_revision), event.kv
    raise AssertionError("a watch ends by an error alone")


async def _leaders(client: Client, name: bytes) -> AsyncIterator[RangeResult]:
    """Each leader from the present one on, and each of its proclamations, in answers as etcd's client makes up."""
    prefix = name + b"/"
    while True:
        found = await client.get(prefix, range_end=prefix_end(prefix), sort=("create", False), limit=1)
        head, leader = found.header, found.kvs[0] if found.kvs else None
        if leader is None:
            head, leader = await _first_put(client, prefix, head.revision + 1)
        yield RangeResult(head, (leader,), False, 0)
        async for later, proclaimed in _values(client, leader.key, head.revision + 1):
            yield RangeResult(later, (proclaimed,), False, found.count)


async def _values(client: Client, key: bytes, since: int) -> AsyncIterator[tuple[Header, KeyValue]]:
    """What a key becomes until it is deleted."""
    async with client.watch(key, start_revision=since) as changes:
        async for batch in changes:
            for event in batch.events:
                if event.type == "delete" or batch.header is None:
                    return
                yield batch.header, event.kv


def elect(
    words: ElectWords = None,
    listen: Annotated[bool, typer.Option("-l", "--listen", help="Only print who leads.")] = False,
) -> None:
    """Campaign with PROPOSAL and lead until interrupted; or print each leader."""
    allow("fields", "protobuf")
    message = "elect takes one election name argument and an optional proposal argument"
    name, *proposal = count(words, 1, 2, message)
    if not proposal and not listen:
        fail("no proposal argument but -l not set", BAD_ARGUMENTS)
    if proposal and listen:
        fail("proposal given but -l is set", BAD_ARGUMENTS)

    async def observe(client: Client) -> None:
        async for leader in _leaders(client, raw(name)):
            show_result("RangeResponse", leader)

    async def watching(client: Client) -> None:
        stop = Stop()
        task = asyncio.create_task(observe(client))
        asked = asyncio.create_task(stop.asked.wait())
        await asyncio.wait([task, asked], return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if task.done():
            task.result()
            fail("elect: observer lost", REFUSED)
        task.cancel()

    run((lambda client: _lead(client, raw(name), raw(proposal[0]))) if proposal else watching, patient=True)


async def _lead(client: Client, name: bytes, value: bytes) -> None:
    from kvstore.recipes import Election, Session

    stop = Stop()
    async with Session(client, ttl=ELECTION_TTL_S) as session:
        election = Election(session, name)
        await stop.before(election.campaign(value))
        try:
            show_result("RangeResponse", await client.get(election.key))
            await stop.or_lost(session, "elect: session expired")
        finally:
            await election.resign()
