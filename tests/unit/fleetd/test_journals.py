"""A unit's journal across machines: followed over a restart of the fleetd that has the lines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from agent.nodeapi import NodeClients
from agent.pb import node_pb2 as pb
from agent.pb import node_pb2_grpc
from benchmarks.ports import free_port
from fleetd import journals
from fleetd.journals import Journals
from fleetd.registry import Registry, keys
from fleetd.registry.records import Placed
from kvstore.client import Client
from tests.unit.fleetd.world import store


class Service(node_pb2_grpc.NodeServicer):
    """The part of node RPC that a journal needs."""

    def __init__(self, there: Journals) -> None:
        self._there = there

    async def Journal(self, request: pb.JournalRequest, context: object) -> AsyncIterator[pb.JournalLine]:
        async for line in self._there.here(request.unit, request.lines, request.follow):
            yield line


async def serve(there: Journals, port: int) -> grpc.aio.Server:
    server = grpc.aio.server()
    node_pb2_grpc.add_NodeServicer_to_server(Service(there), server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    return server


def write(root: Path, *lines: tuple[int, str]) -> None:
    folder = root / "x.service" / "000001-start"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "log.1", "a") as file:
        for second, text in lines:
            file.write(f"2026-01-02T03:04:{second:02d}.000000000Z stdout F {text}\n")


class Reader:
    """Collects what a follower is shown."""

    def __init__(self, source: AsyncIterator[Mapping[str, Any]]) -> None:
        self.texts: list[str] = []
        self.notes: list[str] = []
        self.task = asyncio.create_task(self._run(source))

    async def _run(self, source: AsyncIterator[Mapping[str, Any]]) -> None:
        async for line in source:
            (self.notes if "note" in line else self.texts).append(line.get("note") or line["text"])

    async def until(self, *texts: str) -> None:
        async with asyncio.timeout(60):
            while len(self.texts) < len(texts):
                await asyncio.sleep(0.02)
        assert self.texts == list(texts)


async def place(client: Client, machine: str) -> None:
    await client.put(keys.machine(machine), keys.encode(address="127.0.0.1"))
    await client.put(keys.presence(machine), keys.encode(boot="b", address="127.0.0.1"))
    await client.put(keys.placement(machine, "x.service"), Placed("x.service", machine, "f", "launched").value())


async def test_a_follower_goes_on_when_the_other_fleetd_has_restarted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "READ_AGAIN_S", 0.1)
    with store(tmp_path) as url:
        client, port = Client([url]), free_port()
        registry = Registry(client, "a")
        clients = NodeClients(grpc.aio.insecure_channel)
        here = Journals(tmp_path / "here", "a", "b", registry, clients, port)
        there = Journals(tmp_path / "there", "b", "b", registry, clients, port)
        await place(client, "b")
        write(tmp_path / "there", (1, "old"), (2, "one"))
        server = await serve(there, port)
        reader = Reader(here.anywhere("x.service", 1, True))
        await reader.until("one")
        write(tmp_path / "there", (3, "two"))
        await reader.until("one", "two")
        await server.stop(grace=0)
        async with asyncio.timeout(60):
            while not reader.notes:
                await asyncio.sleep(0.02)
        write(tmp_path / "there", (4, "three"))
        server = await serve(there, port)
        await reader.until("one", "two", "three")
        write(tmp_path / "there", (5, "four"))
        await reader.until("one", "two", "three", "four")
        assert reader.notes == ["b does not answer: its lines go on when it does"]
        once = [line["text"] async for line in here.anywhere("x.service", 2, False)]
        assert once == ["three", "four"]
        reader.task.cancel()
        await asyncio.gather(reader.task, return_exceptions=True)
        await server.stop(grace=0)
        await clients.close()
        await client.close()


async def test_an_error_in_the_lines_is_a_note_and_not_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "READ_AGAIN_S", 0.1)
    with store(tmp_path) as url:
        client = Client([url])
        here = Journals(tmp_path, "a", "b", Registry(client, "a"), NodeClients(grpc.aio.insecure_channel), 1)
        await place(client, "a")
        (tmp_path / "x.service").mkdir()
        write(tmp_path, (1, "one"))
        log = tmp_path / "x.service" / "000001-start" / "log.1"
        log.rename(tmp_path / "aside")
        log.mkdir()
        reader = Reader(here.anywhere("x.service", 0, True))
        async with asyncio.timeout(60):
            while not reader.notes:
                await asyncio.sleep(0.02)
        log.rmdir()
        (tmp_path / "aside").rename(log)
        await reader.until("one")
        reader.task.cancel()
        await asyncio.gather(reader.task, return_exceptions=True)
        await client.close()
