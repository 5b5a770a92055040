"""Members of our own under traffic through the native client: one that leaves, one that gets everything anew."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

from kvstore.client import Client
from kvstore.errors import StoreError
from tests.unit.kvstore.members import Cluster


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


async def leader_of(client: Client, cluster: Cluster) -> int:
    """Which endpoint belongs to the leader, once every member runs and knows it."""
    async with asyncio.timeout(30):
        while True:
            try:
                status = [await client.status(endpoint) for endpoint in cluster.endpoints]
                return next(at for at, one in enumerate(status) if one.leader == one.member_id and one.leader)
            except (StoreError, StopIteration):
                await asyncio.sleep(0.05)


async def test_a_leader_that_is_told_to_stop_hands_over_first(tmp_path: Path) -> None:
    """The election timeout is 10 s: whoever waited for it would be noticed."""
    cluster = Cluster(tmp_path, 3, ours=True, flags=["--heartbeat-interval=100", "--election-timeout=10000"])
    try:
        async with Client(cluster.endpoints, timeout=60) as client:
            await client.put(b"k", b"v")
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
                        code = await asyncio.to_thread(cluster.processes[leader].wait, 20)
                        took = time.monotonic() - begin
                        await traffic.more(50)
                        await traffic.stop()
                        print(
                            f"left in {took:.3f} s, longest put {max(traffic.seconds):.3f} s of {len(traffic.seconds)}"
                        )
                        assert code == 0 and not traffic.errors
                        assert took < 3 and max(traffic.seconds) < 2
                        last = int((await user.get(b"traffic")).kvs[0].value)
                        assert last in (len(traffic.seconds) - 1, len(traffic.seconds))
                    cluster.restart(leader)
    finally:
        cluster.close()
