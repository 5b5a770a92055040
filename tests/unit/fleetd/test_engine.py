"""The engine and the agent's link on a real store: placing, moving, coming back, being deposed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fleetd.engine import Engine, files
from fleetd.engine import leader as leader_module
from fleetd.engine.commit import Deposed, commit
from fleetd.engine.decisions import Explain, Place, Unplace
from fleetd.registry import Registry, keys
from fleetd.registry.follow import Changed, Listed, follow, list_prefix
from fleetd.registry.records import Placed
from kvstore.client import Client, prefix_end
from tests.unit.fleetd.world import Member, members, store, store_process, until

TEXT = "[Service]\nExecStart=/bin/sleep 1000\n"


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with store(tmp_path) as found:
        yield found


@asynccontextmanager
async def engine(url: str, machine: str, *, booted: bool = False) -> AsyncIterator[tuple[Engine, Client]]:
    client = Client([url])
    leader = Engine(client, machine, booted=booted)
    task = asyncio.create_task(leader.run())
    try:
        yield leader, client
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()


async def test_a_thousand_units_are_placed_without_a_range_request(url: str) -> None:
    client = Client([url])
    async with members(client, "a", "b", "c") as machines, engine(url, "a") as (leader, counted):
        await until(lambda: leader.leading)
        await asyncio.sleep(0.3)
        before = counted.requests["range"]
        registry = Registry(client, "a")
        for start in range(0, 1000, 50):
            names = [f"u{i}.service" for i in range(start, start + 50)]
            assert all(await asyncio.gather(*(registry.create_unit(name, TEXT, "launched") for name in names)))
        await until(lambda: sum(len(m.placed) for m in machines) == 1000, 120)
        assert before and counted.requests["range"] == before
        assert sorted(len(m.placed) for m in machines) == [333, 333, 334]
    await client.close()


async def test_a_silent_machine_s_units_move_and_come_back_or_stay(url: str) -> None:
    client = Client([url])
    async with members(client, "a", "b", "c") as machines, engine(url, "a") as (leader, _):
        await until(lambda: leader.leading)
        registry = Registry(client, "a")
        for index in range(9):
            await registry.create_unit(f"u{index}.service", TEXT, "launched")
        await until(lambda: all(len(m.placed) == 3 for m in machines))
        lost: Member = machines[2]
        before = set(lost.placed)
        await asyncio.sleep(0.3)
        lost.fall_silent()
        # How soon is what tests/faults/test_failover.py measures.
        await until(lambda: len(machines[0].placed) + len(machines[1].placed) == 9)
        assert set(lost.placed) == before, "a machine that was thought dead keeps what it runs until it is answered"
        await asyncio.sleep(0.5)
        await lost.appear()
        await until(lambda: not lost.placed)
        placed = {(m.registry.machine_id, unit) for m in machines for unit in m.placed}
        async with asyncio.timeout(60):
            while {(s.machine, s.state.unit) for s in await registry.states()} != placed:
                await asyncio.sleep(0.02)
    await client.close()


async def test_a_unit_that_no_machine_takes_has_a_reason(url: str) -> None:
    client = Client([url])
    async with members(client, "a") as machines, engine(url, "a"):
        registry = Registry(client, "a")
        await registry.create_unit("x.service", TEXT + "[X-Fleet]\nMachineMetadata=disk=tape\n", "launched")
        async with asyncio.timeout(60):
            while not await registry.reason("x.service"):
                await asyncio.sleep(0.02)
        assert "without metadata disk=tape" in await registry.reason("x.service")
        await registry.replace_unit("x.service", TEXT, "launched")
        await until(lambda: "x.service" in machines[0].placed)
        assert await registry.reason("x.service") == ""
    await client.close()


async def test_another_engine_takes_over_and_the_old_one_s_writes_fail(url: str) -> None:
    client = Client([url])
    async with engine(url, "b") as (second, _):
        await until(lambda: second.leading)
        assert await Registry(client, "a").engine_leader() == "b"
        term = (await client.get(keys.LEADER)).kvs[0].create_revision
        assert await commit(client, term, [(Explain("x.service", "because"),)])
        async with engine(url, "a") as (first, _):
            await asyncio.sleep(0.5)
            assert not first.leading
            await client.delete(keys.LEADER)
            await until(lambda: first.leading or not second.leading)
            with pytest.raises(Deposed):
                await commit(client, term, [(Explain("x.service", "still"),)])
        assert await Registry(client, "a").reason("x.service") != "still"
    await client.close()


async def test_nothing_is_taken_from_a_machine_that_came_back_after_the_plan(url: str) -> None:
    client = Client([url])
    await client.put(keys.LEADER, b"{}")
    term = (await client.get(keys.LEADER)).kvs[0].create_revision
    here, there = (Placed("x.service", machine, "f", "launched") for machine in "ab")
    await commit(client, term, [(Place(here),)])
    move = [(Unplace("x.service", "a", lost=True), Place(there))]
    await Registry(client, "a").announce("boot", "10.0.0.1", (await client.lease_grant(60)).id)
    with pytest.raises(Deposed):
        await commit(client, term, move)
    assert [placed.machine for placed in await Registry(client, "a").placements()] == ["a"]
    await client.delete(keys.presence("a"))
    await commit(client, term, move)
    assert [placed.machine for placed in await Registry(client, "a").placements()] == ["b"]
    await client.close()


@pytest.mark.parametrize("booted", [True, False])
async def test_only_a_booted_machine_counts_what_it_could_not_see_as_a_silence(url: str, booted: bool) -> None:
    client = Client([url])
    async with members(client, "a"), engine(url, "a", booted=booted) as (leader, _):
        await until(lambda: leader.leading)
        registry = Registry(client, "a")
        await registry.create_unit("u.service", TEXT, "launched")
        while not await registry.placements():
            await asyncio.sleep(0.02)
        assert bool(await registry.alarm()) == booted
    await client.close()


async def test_a_plan_that_asks_nobody_does_not_hide_the_store_s_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader_module, "LEASE_TTL_S", 2)
    monkeypatch.setattr(files, "LOOK_EVERY_S", 0.2)
    with store_process(tmp_path) as (url, process):
        client = Client([url])
        async with engine(url, "a") as (leader, _):
            await until(lambda: leader.leading)
            assert not await Registry(client, "a").alarm()
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(5)
            process.send_signal(signal.SIGCONT)
            async with asyncio.timeout(60):
                while not await Registry(client, "a").alarm():
                    await asyncio.sleep(0.02)
        await client.close()


async def test_a_listing_older_than_the_last_write_places_nothing_twice(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was compacted is listed again; meanwhile the engine may have written what that listing does not hold."""
    client = Client([url])
    registry = Registry(client, "a")
    placed: list[bytes] = []

    async def placements() -> None:
        watch = client.watch(keys.PLACEMENTS, range_end=prefix_end(keys.PLACEMENTS), start_revision=1)
        async with watch:
            async for batch in watch:
                placed.extend(event.kv.key for event in batch.events if event.type == "put")

    async def compacted(client: Client, prefix: bytes) -> AsyncIterator[Listed | Changed]:
        if not placed:
            listed = await list_prefix(client, prefix)
            yield Listed(listed.revision, listed.kvs[::-1])
            await until(lambda: bool(placed))
            yield listed
            await until(lambda: len(placed) > 1, 1)
        async for change in follow(client, prefix):
            yield change

    monkeypatch.setattr(leader_module, "follow", compacted)
    watching = asyncio.create_task(placements())
    async with members(client, "a", "b"):
        await registry.create_unit("x.service", TEXT, "launched")
        async with engine(url, "a"):
            await until(lambda: bool(placed))
            await registry.create_unit("y.service", TEXT, "launched")
            await until(lambda: any(key.endswith(b"/y.service") for key in placed))
            assert len([key for key in placed if key.endswith(b"/x.service")]) == 1
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await client.close()
