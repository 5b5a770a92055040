"""Members of our own under traffic through the native client: one that leaves, one that gets everything anew."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from pathlib import Path

from kvstore.client import Client
from kvstore.errors import StoreError
from tests.unit.kvstore.members import Cluster, leader_of

SLOW_ELECTIONS = "--election-timeout=10000"


class Traffic:
    """Puts one after the other, until told to stop; remembers how long each took and what failed."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.seconds: list[float] = []
        self.errors: list[StoreError] = []
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            begin = time.monotonic()
            try:
                await self._client.put(b"traffic", b"%d" % len(self.seconds))
            except StoreError as error:
                self.errors.append(error)
            self.seconds.append(time.monotonic() - begin)

    async def more(self, count: int) -> None:
        """Wait for this many more puts."""
        wanted = len(self.seconds) + count
        while len(self.seconds) < wanted:
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """End it; the put under way is given up."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_a_leader_that_is_told_to_stop_hands_over_first(tmp_path: Path) -> None:
    """The election timeout is 10 s: whoever waited for it would be noticed."""
    cluster = Cluster(tmp_path, 3, ours=True)
    try:
        async with Client(cluster.endpoints, timeout=60) as client:
            await client.put(b"k", b"v")
            # Not so from the start on: the first election would take that long.
            leader = await leader_of(client, cluster)
            for at in sorted(range(3), key=lambda at: at == leader):
                cluster.processes[at].terminate()
                await asyncio.to_thread(cluster.processes[at].wait, 60)
                cluster.restart(at, SLOW_ELECTIONS)
                await leader_of(client, cluster)
            for _ in range(2):
                leader = await leader_of(client, cluster)
                others = [url for at, url in enumerate(cluster.endpoints) if at != leader]
                for order in ([cluster.endpoints[leader], *others], [*others, cluster.endpoints[leader]]):
                    async with Client(order, timeout=8) as user:
                        traffic = Traffic(user)
                        await traffic.more(50)
                        leader = await leader_of(client, cluster)
                        begin = time.monotonic()
                        cluster.processes[leader].send_signal(signal.SIGTERM)
                        code = await asyncio.to_thread(cluster.processes[leader].wait, 60)
                        took = time.monotonic() - begin
                        await traffic.more(50)
                        await traffic.stop()
                        print(
                            f"left in {took:.3f} s, longest put {max(traffic.seconds):.3f} s of {len(traffic.seconds)}"
                        )
                        assert code == 0 and not traffic.errors
                        assert took < 5 and max(traffic.seconds) < 5
                        last = int((await user.get(b"traffic")).kvs[0].value)
                        assert last in (len(traffic.seconds) - 1, len(traffic.seconds))
                    cluster.restart(leader, SLOW_ELECTIONS)
    finally:
        cluster.close()


async def test_puts_go_on_while_a_large_snapshot_is_sent(tmp_path: Path) -> None:
    """A member is wiped and comes back as a new one; the log that it would need is gone.

    It needs one snapshot: what is written while that is on its way is kept for it.
    """
    mebi = 1 << 20
    count = 110
    cluster = Cluster(tmp_path, 3, ours=True, flags=["--snapshot-count=20"])
    try:
        async with Client(cluster.endpoints, timeout=60) as client:
            await client.put(b"k", b"v")
            leader = await leader_of(client, cluster)
            wiped = (leader + 1) % 3
            order = [
                cluster.endpoints[leader],
                *(u for at, u in enumerate(cluster.endpoints) if at not in (leader, wiped)),
            ]
            old = (await client.status(cluster.endpoints[wiped])).member_id
            peers = next(one.peer_urls for one in (await client.member_list()).members if one.id == old)
        async with Client(order, timeout=60) as client:
            cluster.kill(wiped)
            for at in range(count):
                await client.put(b"large/%03d" % at, bytes([at]) * mebi)
            await client.member_remove(old)
            shutil.rmtree(tmp_path / f"m{wiped}")
            traffic = Traffic(client)
            await traffic.more(50)
            usual = max(traffic.seconds)
            await client.member_add(peers, learner=True)
            traffic.seconds.clear()
            begin = time.monotonic()
            cluster.restart(wiped, "--initial-cluster-state=existing")
            async with Client([cluster.endpoints[wiped]], timeout=60) as fresh:
                async with asyncio.timeout(120):
                    while True:
                        found = await settled(fresh)
                        if found == count:
                            break
                        await asyncio.sleep(0.1)
                took = time.monotonic() - begin
                last = await fresh.get(b"large/%03d" % (count - 1), serializable=True)
                assert last.kvs[0].value == bytes([count - 1]) * mebi
            added = next(one for one in (await client.member_list()).members if one.peer_urls == peers)
            async with asyncio.timeout(60):
                while added.is_learner:
                    try:
                        await client.member_promote(added.id)
                        break
                    except StoreError as error:
                        assert "in sync" in str(error)
                        await asyncio.sleep(0.1)
            await traffic.stop()
            written = (await client.get(b"traffic")).kvs[0].mod_revision
            async with Client([cluster.endpoints[wiped]], timeout=60) as fresh, asyncio.timeout(60):
                while (await fresh.get(b"traffic", serializable=True)).kvs[0].mod_revision < written:
                    await asyncio.sleep(0.05)
            print(
                f"{count} MiB to a wiped member in {took:.2f} s; longest of {len(traffic.seconds)} puts meanwhile "
                f"{max(traffic.seconds):.3f} s, before {usual:.3f} s"
            )
            assert not traffic.errors and len(traffic.seconds) > 20
            # Whoever is held while it is sent waits for all of it.
            assert max(traffic.seconds) < max(2, took / 2)
            assert (tmp_path / f"m{wiped}.log").read_text().count("replaced by the snapshot") == 1
    finally:
        cluster.close()


async def settled(client: Client) -> int:
    """How many large keys this one member has."""
    found = await client.get(b"large/", range_end=b"large0", serializable=True, keys_only=True)
    return found.count
