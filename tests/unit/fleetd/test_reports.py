"""What the agent's link writes: the newest states, under the lease that counts, and nothing of an earlier run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.interfaces import ContainerRecord, Placement, UnitState, Unreadable
from fleetd.accepting import Accepting
from fleetd.registry import NewerRecord, Registry, RegistryError, keys, reports
from fleetd.registry.follow import list_prefix
from fleetd.registry.records import Placed, Return
from fleetd.registry.reports import ClusterLink
from kvstore.client import Client
from tests.unit.fleetd.world import store


def state(unit: str, active: str = "active", epoch: int = 5) -> UnitState:
    return UnitState(unit, epoch, "loaded", active, "running", exit_status=3, since=1.5, why="because")


@asynccontextmanager
async def linked(directory: Path) -> AsyncIterator[tuple[Client, ClusterLink]]:
    with store(directory) as url:
        client = Client([url])
        link = ClusterLink(client, "m")
        task = asyncio.create_task(link.run())
        try:
            yield client, link
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await client.close()


async def names(client: Client, prefix: bytes = keys.STATES, count: int | None = None) -> list[str]:
    """The keys under a prefix; with `count`, once there are so many."""
    async with asyncio.timeout(60):
        while True:
            found = [keys.split(kv.key)[1][-1] for kv in (await list_prefix(client, prefix)).kvs]
            if count is None or len(found) == count:
                return found
            await asyncio.sleep(0.02)


async def test_reports_wait_for_a_lease_and_die_with_it(tmp_path: Path) -> None:
    async with linked(tmp_path) as (client, link):
        await link.report_units([state("x.service")], [])
        await link.report_containers([ContainerRecord("c1", "web", "busybox", "x.service", "172.17.0.2")], [])
        await asyncio.sleep(0.2)
        assert await names(client) == []
        lease = (await client.lease_grant(60)).id
        link.set_lease(lease)
        assert await names(client, count=1) == ["x.service"]
        assert await names(client, keys.CONTAINERS, count=1) == ["c1"]
        (written,) = await Registry(client, "m").states("m")
        assert written.state == state("x.service")
        await client.lease_revoke(lease)
        assert await names(client) == []
        second = (await client.lease_grant(60)).id
        link.set_lease(second, returning=False)
        assert await names(client, count=1) == ["x.service"]
        await link.report_containers([], ["c1"])
        assert await names(client, keys.CONTAINERS, count=0) == []


async def test_only_the_newest_state_of_many_is_written(tmp_path: Path) -> None:
    async with linked(tmp_path) as (client, link):
        for turn in range(50):
            await link.report_units([state(f"u{i}.service", epoch=turn) for i in range(300)], [])
        link.set_lease((await client.lease_grant(60)).id)
        assert len(await names(client, count=300)) == 300
        listed = await list_prefix(client, keys.STATES)
        assert {kv.version for kv in listed.kvs} == {1}
        assert {keys.decode(kv.key, kv.value)["epoch"] for kv in listed.kvs} == {49}


async def test_what_an_earlier_fleetd_reported_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "SWEEP_AFTER_S", 0.3)
    async with linked(tmp_path) as (client, link):
        lease = (await client.lease_grant(60)).id
        await client.put(keys.state("m", "old.service"), keys.encode(), lease=lease)
        await client.put(keys.state("other", "old.service"), keys.encode(), lease=lease)
        link.set_lease(lease)
        await link.report_units([state("x.service")], [])
        async with asyncio.timeout(60):
            while await names(client, keys.state("m", "")) != ["x.service"]:
                await asyncio.sleep(0.02)
        assert await names(client, keys.state("other", "")) == ["old.service"]


def test_a_record_of_a_newer_program_is_refused_with_a_sentence() -> None:
    with pytest.raises(NewerRecord, match=r"units/x.service has version 2; this program reads up to 1. Upgrade fleetd"):
        keys.decode(keys.unit("x.service"), b'{"v": 2}')
    with pytest.raises(RegistryError, match="is not one of ours"):
        keys.decode(keys.unit("x.service"), b"hello")
    with pytest.raises(RegistryError, match=r"units/x.service has no field 'file'"):
        keys.decode(keys.unit("x.service"), keys.encode())["file"]
    with pytest.raises(RegistryError, match="'lease' of the record /fleet/v1/returns/m is no whole number"):
        Return.read("m", keys.returning("m"), keys.encode(lease="x"))


def complaint(item: Placement | Unreadable) -> str:
    assert isinstance(item, Unreadable)
    return item.why


async def test_a_placement_that_can_t_be_read_is_no_removal(tmp_path: Path) -> None:
    async with linked(tmp_path) as (client, link):
        lease = (await client.lease_grant(60)).id
        await Registry(client, "m").announce("boot", "10.0.0.1", lease)
        link.set_lease(lease)
        digest = keys.file_hash("text")
        await client.put(keys.file(digest), keys.encode(text="text"))

        async def place(unit: str, value: bytes = b"", file: str = digest) -> None:
            await client.put(keys.placement("m", unit), value or Placed(unit, "m", file, "launched").value())

        await place("x.service")
        await place("new.service", b'{"v": 2}')
        async with asyncio.timeout(60):
            sets = link.placements()
            first = await anext(sets)
            assert isinstance(first["x.service"], Placement)
            assert "version 2" in complaint(first["new.service"])
            await place("x.service", b'{"v": 2}')
            assert "version 2" in complaint((await anext(sets))["x.service"])
            await place("x.service", keys.encode(desired="launched"))
            assert "no field 'file'" in complaint((await anext(sets))["x.service"])
            await client.put(keys.file("bad"), b"no record")
            await place("x.service", file="bad")
            assert "not one of ours" in complaint((await anext(sets))["x.service"])
            await place("x.service", file="absent")
            assert "absent is not in the store" in complaint((await anext(sets))["x.service"])
            await place("x.service")
            again = (await anext(sets))["x.service"]
            assert isinstance(again, Placement) and again.text == "text"
            await client.delete(keys.placement("m", "new.service"))
            assert set(await anext(sets)) == {"x.service"}


async def test_a_return_is_answered_though_an_unreadable_answer_came_before(tmp_path: Path) -> None:
    async with linked(tmp_path) as (client, link):
        lease = (await client.lease_grant(60)).id
        await link.report_units([], [])
        watch = client.watch(keys.returning("m"), start_revision=1)
        link.set_lease(lease, returning=True)
        async with asyncio.timeout(60), watch:
            await anext(aiter(watch))
            await client.put(keys.returning("m"), b'{"v": 2}')
            await client.put(keys.returning("m"), Return("m", lease, None).value())
            await link.report_units([state("x.service")], [])
            assert await names(client, count=1) == ["x.service"]


async def test_voters_that_can_t_be_read_are_a_sentence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with linked(tmp_path) as (client, _):
        await client.put(keys.VOTERS, b'{"v": 2}')
        accepting = Accepting(client, lambda: "", lambda: [])
        with pytest.raises(RegistryError, match="cluster/voters has version 2"):
            await accepting.why_not()
        counting = asyncio.create_task(accepting.run())
        async with asyncio.timeout(60):
            while "cluster/voters has version 2" not in caplog.text:
                await asyncio.sleep(0.02)
            await client.delete(keys.VOTERS)
            await counting
