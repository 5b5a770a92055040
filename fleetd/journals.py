"""The journal of a unit across the cluster: this machine's from its own files, others' by node RPC.

A follower goes from machine to machine with the unit: each switch is marked, and where a machine can't be read a line
says so instead of leaving the gap unseen, and the lines go on once it can.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any

import grpc.aio

from agent import journal
from agent.nodeapi import NodeClients
from agent.pb import node_pb2 as pb
from fleetd.registry import Registry, keys
from fleetd.registry.follow import Changed, Listed, follow
from kvstore.errors import StoreError

log = logging.getLogger(__name__)
QUEUE_LINES = 1_000
REMEMBERED_LINES = 1_000
"""Of the lines shown last, so that none is shown twice when a machine is asked again."""
READ_AGAIN_S = 1.0
"""Pause before a machine whose lines have ended is asked again."""


class _Gap(Exception):
    """A machine can't be asked for its lines; the text is a sentence for the reader."""


class Journals:
    """Lines of units, here and elsewhere."""

    def __init__(
        self, root: Path, machine_id: str, boot: str, registry: Registry, clients: NodeClients, port: int
    ) -> None:
        self._root = root
        self._me = machine_id
        self._boot = boot
        self._registry = registry
        self._clients = clients
        self._port = port

    async def here(self, unit: str, lines: int, follows: bool) -> AsyncIterator[pb.JournalLine]:
        """What this machine has; `lines` 0 for all."""
        directory = self._root / unit
        if follows:
            source = journal.follow(directory, lines or None)
            async for line in source:
                yield self._message(line)
            return
        for line in await asyncio.to_thread(journal.read, directory, lines or None):
            yield self._message(line)

    def _message(self, line: journal.JournalLine) -> pb.JournalLine:
        return pb.JournalLine(time_ns=line.time_ns, stream=line.stream, text=line.text, boot=self._boot)

    async def anywhere(self, unit: str, lines: int, follows: bool) -> AsyncIterator[Mapping[str, Any]]:
        """The lines of a unit wherever it runs, each with its machine."""
        if not follows:
            machine = self._choose(placed.machine for placed in await self._registry.placements_of([unit]))
            if machine is None:
                return
            try:
                async for line in self._of(machine, unit, lines, False):
                    yield self._line(machine, line)
            except _Gap as gap:
                yield self._note(machine, str(gap))
            return
        queue: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue(QUEUE_LINES)
        follower = asyncio.create_task(self._follow(unit, lines, queue))
        try:
            while not follower.done() or not queue.empty():
                getter = asyncio.create_task(queue.get())
                await asyncio.wait({getter, follower}, return_when=asyncio.FIRST_COMPLETED)
                if getter.done():
                    yield getter.result()
                else:
                    getter.cancel()
            follower.result()
        finally:
            follower.cancel()

    def _choose(self, machines: Iterable[str]) -> str | None:
        """Whose lines are read of the machines that a unit is placed on."""
        found = sorted(machines)
        return self._me if self._me in found else next(iter(found), None)

    async def _follow(self, unit: str, lines: int, queue: asyncio.Queue[Mapping[str, Any]]) -> None:
        """Read where the unit is placed; when that changes, go there."""
        current: str | None = None
        reader: asyncio.Task[None] | None = None
        where: set[str] = set()
        try:
            async for change in follow(self._registry.client, keys.PLACEMENTS):
                if isinstance(change, Listed):
                    places = [keys.split(kv.key)[1] for kv in change.kvs]
                    where = {machine for machine, *_, placed in places if placed == unit}
                for event in change.events if isinstance(change, Changed) else ():
                    machine, *_, placed = keys.split(event.kv.key)[1]
                    if placed == unit:
                        (where.add if event.type == "put" else where.discard)(machine)
                chosen = self._choose(where)
                if chosen is None or chosen == current:
                    continue
                if reader is not None:
                    reader.cancel()
                    await queue.put(self._note(chosen, f"{unit} is on {chosen} now"))
                reader = asyncio.create_task(self._read(chosen, unit, lines if current is None else 0, queue))
                current = chosen
        finally:
            if reader is not None:
                reader.cancel()

    async def _read(self, machine: str, unit: str, lines: int, queue: asyncio.Queue[Mapping[str, Any]]) -> None:
        """Follow a machine's lines until cancelled. When it can't be read a note says so, and it is asked again for
        what came after the last line."""
        shown: deque[tuple[int, str, str]] = deque(maxlen=REMEMBERED_LINES)
        noted = ""
        while True:
            known = set(shown)
            since = min(shown)[0] if shown else 0
            try:
                async for line in self._of(machine, unit, 0 if shown else lines, True):
                    mark = (line.time_ns, line.stream, line.text)
                    if line.time_ns < since or mark in known:
                        continue
                    shown.append(mark)
                    noted = ""
                    await queue.put(self._line(machine, line))
                problem = f"{machine} has ended the lines of {unit}; it is asked again"
            except _Gap as gap:
                problem = str(gap)
            except (StoreError, keys.RegistryError, journal.JournalError, OSError, ExceptionGroup) as failed:
                error: BaseException = failed
                while isinstance(error, BaseExceptionGroup):
                    error = error.exceptions[0]
                log.warning("The lines of %s on %s can't be read: %r", unit, machine, error)
                problem = f"the lines of {unit} on {machine} can't be read now: {error}"
            if problem != noted:
                await queue.put(self._note(machine, problem))
                noted = problem
            await asyncio.sleep(READ_AGAIN_S)

    async def _of(self, machine: str, unit: str, lines: int, follows: bool) -> AsyncIterator[pb.JournalLine]:
        """A machine's lines. Raises _Gap when it can't be asked."""
        if machine == self._me:
            async for line in self.here(unit, lines, follows):
                yield line
            return
        presence = await self._registry.presence(machine)
        if presence is None:
            raise _Gap(f"{machine} is not reachable: its lines are missing here")
        request = pb.JournalRequest(unit=unit, lines=lines, follow=follows)
        try:
            async for line in self._clients.journal(f"{presence.address}:{self._port}", request):
                yield line
        except grpc.aio.AioRpcError as error:
            words = "its lines go on when it does" if follows else "what it has written is missing here"
            raise _Gap(f"{machine} does not answer: {words}") from error

    @staticmethod
    def _line(machine: str, line: pb.JournalLine) -> Mapping[str, Any]:
        return {
            "machine": machine,
            "time_ns": line.time_ns,
            "stream": line.stream,
            "text": line.text,
            "boot": line.boot,
        }

    @staticmethod
    def _note(machine: str, text: str) -> Mapping[str, Any]:
        return {"machine": machine, "note": text}
