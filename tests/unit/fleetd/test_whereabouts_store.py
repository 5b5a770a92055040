"""Where a store's peers are goes by what that store knows: other members may be ahead of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path

from agent.nodeapi import NodeClients
from fleetd.bootstrap import Bootstrap
from fleetd.config import PEER_PORT, Config
from fleetd.forming import Peer
from fleetd.trust import Trust
from fleetd.whereabouts import Whereabouts
from kvstore.client import Client
from tests.unit.fleetd.world import store

CLUSTER = "c"
PATIENCE_S = 60.0


class Seeing(Bootstrap):
    """Sees one other machine, always at the same place."""

    async def look(self, addresses: Iterable[str] | None = None) -> dict[str, Peer]:
        return {"m": Peer("m", "127.0.0.1:7480", CLUSTER)}


async def test_a_member_behind_the_others_keeps_the_overrides_that_it_needs(tmp_path: Path) -> None:
    """The client's first endpoint knows where the member `m` is, the own store does not: it has not heard of it yet."""
    where = f"http://127.0.0.1:{PEER_PORT}"
    file = tmp_path / "peer-urls.json"
    (tmp_path / "ahead").mkdir()
    (tmp_path / "behind").mkdir()
    with store(tmp_path / "ahead") as ahead, store(tmp_path / "behind") as behind:
        config = Config.model_validate({"data_dir": tmp_path, "run_dir": tmp_path})
        clients = NodeClients(Trust(config).channel)
        bootstrap = Seeing(config, "me", "boot", clients, list)
        bootstrap.save(phase="member", role="voter", cluster_id=CLUSTER)
        async with Client([ahead, behind]) as client, Client([behind]) as own:
            for member in (await client.member_list()).members:
                await client.member_update(member.id, [where])
            known = (await own.member_list()).members
            looking = Whereabouts(config, "me", bootstrap, client, own, {}, file, lambda: None)
            task = asyncio.create_task(looking.run())
            async with asyncio.timeout(PATIENCE_S):
                while not file.exists():
                    await asyncio.sleep(0.02)
            assert json.loads(file.read_bytes()) == {f"{member.id:x}": [where] for member in known}
            task.cancel()
            await asyncio.wait([task])
        await clients.close()
