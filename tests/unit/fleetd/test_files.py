"""Unit files in the store: those that nothing refers to go, and only those."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fleetd.engine import Engine, files
from fleetd.engine.commit import Deposed
from fleetd.engine.files import FileSweep, delete
from fleetd.registry import Registry, keys
from fleetd.registry.follow import list_prefix
from kvstore.client import Client
from tests.unit.fleetd.plans import Cluster, three
from tests.unit.fleetd.world import members, store, until

TEXT = "[Service]\nExecStart=/bin/sleep 1000\n"


def swept(cluster: Cluster, sweep: FileSweep) -> int:
    return len(sweep.look(cluster.snapshot, cluster.now))


def test_a_file_goes_at_the_second_look_that_finds_it_unused() -> None:
    cluster, sweep = three(), FileSweep(0.0)
    cluster.unit("x.service")
    cluster.unit("y.service", "MachineMetadata=disk=ssd")
    cluster.plan()
    cluster.delete(keys.unit("x.service"))
    assert swept(cluster, sweep) == swept(cluster, sweep) == 0, "its placement still names it"
    cluster.plan()
    assert (swept(cluster, sweep), swept(cluster, sweep)) == (0, 1)
    cluster.unit("z.service")
    cluster.delete(keys.unit("z.service"))
    assert swept(cluster, sweep) == 0, "it was written anew meanwhile"


def test_nothing_goes_while_a_wish_can_t_be_read() -> None:
    cluster, sweep = three(), FileSweep(0.0)
    cluster.unit("x.service")
    cluster.delete(keys.unit("x.service"))
    cluster.put(keys.unit("y.service"), b'{"v": 2, "content": "?"}')
    assert swept(cluster, sweep) == swept(cluster, sweep) == 0
    cluster.delete(keys.unit("y.service"))
    assert (swept(cluster, sweep), swept(cluster, sweep)) == (0, 1)


async def stored(client: Client) -> set[str]:
    return {keys.split(kv.key)[1][0] for kv in (await list_prefix(client, keys.FILES)).kvs}


async def test_the_engine_deletes_the_files_of_destroyed_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOOK_EVERY_S", 0.2)
    with store(tmp_path) as url:
        client = Client([url])
        registry = Registry(client, "a")
        async with members(client, "a") as machines:
            task = asyncio.create_task(Engine(Client([url]), "a").run())
            for index in range(3):
                await registry.create_unit(f"u{index}.service", f"{TEXT}#{index}\n", "launched")
            await until(lambda: len(machines[0].placed) == 3)
            await registry.destroy_unit("u0.service")
            await registry.replace_unit("u1.service", f"{TEXT}#new\n", "launched")
            kept = {keys.file_hash(f"{TEXT}#{word}\n") for word in ("new", "2")}
            async with asyncio.timeout(60):
                while await stored(client) != kept:
                    await asyncio.sleep(0.05)
            await asyncio.sleep(1.0)
            assert await stored(client) == kept
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await client.close()


async def test_a_file_that_a_new_wish_names_survives_a_deletion_on_its_way(tmp_path: Path) -> None:
    with store(tmp_path) as url:
        client = Client([url])
        registry = Registry(client, "a")
        await client.put(keys.LEADER, b"{}")
        term = (await client.get(keys.LEADER)).kvs[0].create_revision
        digest = keys.file_hash(TEXT)
        await registry.create_unit("x.service", TEXT, "inactive")
        await registry.destroy_unit("x.service")
        seen = {digest: (await client.get(keys.file(digest))).kvs[0].mod_revision}
        await registry.create_unit("y.service", TEXT, "inactive")
        assert await delete(client, term, seen) == 0
        assert await stored(client) == {digest}
        await registry.destroy_unit("y.service")
        seen = {digest: (await client.get(keys.file(digest))).kvs[0].mod_revision}
        with pytest.raises(Deposed):  # another engine leads
            await delete(client, term + 1, seen)
        assert await stored(client) == {digest}
        assert await delete(client, term, seen) == 1
        assert await stored(client) == set()
        await client.close()


async def test_a_file_written_anew_holds_back_none_of_as_many_as_go_at_once(tmp_path: Path) -> None:
    with store(tmp_path) as url:
        client = Client([url])
        await client.put(keys.LEADER, b"{}")
        term = (await client.get(keys.LEADER)).kvs[0].create_revision
        digests = [keys.file_hash(f"{TEXT}#{index}\n") for index in range(files.AT_ONCE)]
        for digest in digests:
            await client.put(keys.file(digest), b"{}")
        seen = {keys.split(kv.key)[1][0]: kv.mod_revision for kv in (await list_prefix(client, keys.FILES)).kvs}
        await client.put(keys.file(digests[0]), b"{}")
        assert await delete(client, term, seen) == files.AT_ONCE - 1
        assert await stored(client) == {digests[0]}
        await client.close()
