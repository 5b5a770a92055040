"""kvctl's verb make-mirror: the keys of a cluster, and every change of them, into another one."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from cli.kvctl.bar import Bar
from cli.kvctl.keys import raw
from cli.kvctl.session import BAD_ARGUMENTS, asynchronous, connect, count, flags, login, whole
from cli.kvctl.show import out
from cli.output import fail
from kvstore.client import Client, prefix_end
from kvstore.model import MAX_TXN_OPS, Event, KeyValue, Op
from kvstore.tls import Tls

Destination = Annotated[list[str] | None, typer.Argument(metavar="DESTINATION", show_default=False)]
DestFile = Annotated[Path | None, typer.Option(metavar="FILE", help="For TLS there, as without --dest-.")]
PAGE_KEYS = 1000
TXN_BYTES = 512 << 10
"""Keys and values of a transaction, about: a third of what a store takes by default."""
TELL_S = 30.0


@dataclass(frozen=True)
class Change:
    """What becomes of a key's beginning."""

    prefix: bytes
    instead: bytes

    def key(self, key: bytes) -> bytes:
        """The key at the destination."""
        return self.instead + key.removeprefix(self.prefix)

    def put(self, kv: KeyValue) -> Op:
        """A key with its value there; leases are not mirrored."""
        return Op.put(self.key(kv.key), kv.value)

    def operation(self, event: Event) -> Op:
        """A change there."""
        return Op.delete(self.key(event.kv.key)) if event.type == "delete" else self.put(event.kv)


def batches(ops: Iterable[Op], most: int) -> Iterator[list[Op]]:
    """Operations in order, as many together as a transaction takes."""
    batch: list[Op] = []
    room = TXN_BYTES
    for op in ops:
        size = len(op.key) + len(op.value)
        if batch and (len(batch) == most or size > room):
            yield batch
            batch, room = [], TXN_BYTES
        batch.append(op)
        room -= size
    if batch:
        yield batch


class Mirror:
    """Copies from one client to another."""

    def __init__(self, source: Client, destination: Client, change: Change, most: int) -> None:
        self.source = source
        self.destination = destination
        self.change = change
        self.most = most
        self.total = 0
        """Keys and changes copied so far."""
        self._span = (change.prefix or b"\0", prefix_end(change.prefix))

    async def _write(self, ops: Iterable[Op]) -> None:
        for batch in batches(ops, self.most):
            await self.destination.txn([], batch)
            self.total += len(batch)

    async def base(self, bar: Bar) -> int:
        """Copy every key as it is at one revision, which is returned."""
        key, end = self._span
        first = await self.source.get(key, range_end=end, count_only=True)
        revision = first.header.revision
        while True:
            page = await self.source.get(key, range_end=end, revision=revision, limit=PAGE_KEYS)
            await self._write(map(self.change.put, page.kvs))
            bar(self.total, first.count)
            if not page.more:
                return revision
            key = page.kvs[-1].key + b"\0"

    async def updates(self, start: int) -> None:
        """Copy every change from a revision on, those of one revision together where a transaction takes them."""
        key, end = self._span
        async with self.source.watch(key, range_end=end, start_revision=start) as changes:
            async for batch in changes:
                for _, events in itertools.groupby(batch.events, key=lambda event: event.kv.mod_revision):
                    await self._write(map(self.change.operation, events))


async def _tell(mirror: Mirror) -> None:
    while True:
        await asyncio.sleep(TELL_S)
        out(str(mirror.total))


async def _work(there: Client, change: Change, revision: int, most: int) -> None:
    async with connect(patient=True) as source, there:
        mirror = Mirror(source, there, change, most)
        bar = Bar(str)
        telling = asyncio.create_task(_tell(mirror))
        try:
            start = revision if revision > 1 else await mirror.base(bar) + 1
            bar.close()
            await mirror.updates(start)
        finally:
            bar.close()
            telling.cancel()


def make_mirror(
    words: Destination = None,
    prefix: Annotated[str, typer.Option(help="Only keys that begin with this.", show_default=False)] = "",
    rev: Annotated[int, typer.Option(parser=whole, metavar="N", help="Only changes from this revision on.")] = 0,
    max_txn_ops: Annotated[int, typer.Option(min=1, help="Operations of a transaction at most.")] = MAX_TXN_OPS,
    dest_prefix: Annotated[str, typer.Option(help="What they begin with there.", show_default=False)] = "",
    no_dest_prefix: Annotated[bool, typer.Option("--no-dest-prefix", help="Take the prefix away.")] = False,
    dest_user: Annotated[str, typer.Option(help="NAME[:PASSWORD] there.", show_default=False)] = "",
    dest_password: Annotated[str, typer.Option(help="That user's.", show_default=False)] = "",
    dest_cacert: DestFile = None,
    dest_cert: DestFile = None,
    dest_key: DestFile = None,
    dest_insecure_transport: Annotated[
        bool, typer.Option("--dest-insecure-transport/--no-dest-insecure-transport", help="Without TLS there.")
    ] = True,
) -> None:
    """Copy a cluster's keys to another one, and go on with every change until interrupted; prints how many were copied,
    every 30 s."""
    (destination,) = count(words, 1, 1, "make-mirror takes one destination argument")
    if no_dest_prefix and dest_prefix:
        message = "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one"
        fail(message, BAD_ARGUMENTS)
    who = login(dest_user, dest_password, "Destination Password: ") if dest_user else None
    secured = any((dest_cacert, dest_cert, dest_key)) or not dest_insecure_transport
    tls = Tls(cacert=dest_cacert, cert=dest_cert, key=dest_key) if secured else None
    change = Change(raw(prefix), raw(dest_prefix or ("" if no_dest_prefix else prefix)))

    async def work() -> None:
        there = Client(
            destination.split(","), timeout=flags.timeout, patient=False, tls=tls, login=who, limits=flags.limits
        )
        await _work(there, change, rev, max_txn_ops)

    asynchronous(work)
