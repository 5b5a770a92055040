"""The journal of a unit across the cluster: this machine's from its own files, others' by node RPC.

A follower goes from machine to machine with the unit: each switch is marked, and where a machine can't be read a line
says so instead of leaving the gap unseen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc.aio

from agent import journal
from agent.nodeapi import NodeClients
from agent.pb import node_pb2 as pb
from fleetd.registry import Registry, keys
from fleetd.registry.follow import Changed, follow

QUEUE_LINES = 1_000


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
            machine = await self._where(unit)
            if machine is not None:
                async for line in self._of(machine, unit, lines, False):
                    yield line
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

    async def _where(self, unit: str) -> str | None:
        """The machine that a unit is placed on."""
        found = [placed.machine for placed in await self._registry.placements() if placed.unit == unit]
        return self._me if self._me in found else next(iter(found), None)

    async def _follow(self, unit: str, lines: int, queue: asyncio.Queue[Mapping[str, Any]]) -> None:
        """Read where the unit is placed; when that changes, go there."""
        current: str | None = None
        reader: asyncio.Task[None] | None = None
        try:
            async for change in follow(self._registry.client, keys.PLACEMENTS):
                if isinstance(change, Changed) and not any(
                    keys.split(event.kv.key)[1][-1] == unit for event in change.events
                ):
                    continue
                machine = await self._where(unit)
                if machine is None or machine == current:
                    continue
                if reader is not None:
                    reader.cancel()
                    await queue.put(self._note(machine, f"{unit} is on {machine} now"))
                reader = asyncio.create_task(self._read(machine, unit, lines if current is None else 0, queue))
                current = machine
        finally:
            if reader is not None:
                reader.cancel()

    async def _read(self, machine: str, unit: str, lines: int, queue: asyncio.Queue[Mapping[str, Any]]) -> None:
        async for line in self._of(machine, unit, lines, True):
            await queue.put(line)

    async def _of(self, machine: str, unit: str, lines: int, follows: bool) -> AsyncIterator[Mapping[str, Any]]:
        if machine == self._me:
            async for line in self.here(unit, lines, follows):
                yield self._line(machine, line)
            return
        presence = await self._registry.presence(machine)
        if presence is None:
            yield self._note(machine, f"{machine} is not reachable: its lines are missing here")
            return
        request = pb.JournalRequest(unit=unit, lines=lines, follow=follows)
        try:
            async for line in self._clients.journal(f"{presence.address}:{self._port}", request):
                yield self._line(machine, line)
        except grpc.aio.AioRpcError:
            yield self._note(machine, f"{machine} does not answer: what it has written since is missing here")

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
