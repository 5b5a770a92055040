"""What the disk behind the state does to a member: it lags, while the member goes on."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from kvstore.client import Client
from kvstore.errors import Unavailable
from tests.unit.kvstore.members import Cluster, leader_of

HOLD_US = 120_000_000
CALLS = "pwritev,pwrite64,fdatasync"


def thread(pid: int, name: str) -> int:
    """The id of a process's thread of that name."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return next(int(task.name) for task in tasks if (task / "comm").read_text().strip() == name)


@contextlib.contextmanager
def writes_held(tid: int, note: Path) -> Iterator[None]:
    """Keep every write of one thread from beginning; at the end they are let go, and run."""
    words = ["strace", "-q", "-p", str(tid), "-e", f"trace={CALLS}", "-o", str(note)]
    with subprocess.Popen([*words, "-e", f"inject={CALLS}:delay_enter={HOLD_US}"]) as strace:
        try:
            while "\nTracerPid:\t0\n" in Path(f"/proc/{tid}/status").read_text():
                assert strace.poll() is None
            yield
        finally:
            strace.terminate()


async def test_a_member_answers_while_its_state_waits_for_the_disk(tmp_path: Path) -> None:
    value = b"x" * (1 << 20)
    cluster = Cluster(tmp_path, 1, ours=True)
    try:
        async with Client(cluster.endpoints, timeout=20) as client:
            await client.put(b"first", b"1")
            with writes_held(thread(cluster.processes[0].pid, "kv-backend"), tmp_path / "strace"):
                for at in range(1500):
                    await client.put(b"small", str(at).encode())
                # More than may wait for that disk: the rest is applied when it goes on. Half come later, since the
                # writes that wait for their answers are bounded too.
                await asyncio.gather(*(client.put(f"large/{at}".encode(), value) for at in range(50)))
                later = range(50, 100)
                large = [asyncio.create_task(client.put(f"large/{at}".encode(), value)) for at in later]
                done, waiting = await asyncio.wait(large, return_when=asyncio.FIRST_COMPLETED)
                while True:
                    found = await client.get(b"small", serializable=True)
                    assert found.kvs[0].value == b"1499"
                    more, waiting = await asyncio.wait(large, timeout=1)
                    if not more - done:
                        break
                    done = more
                assert done and waiting
            await asyncio.gather(*large)
            cluster.kill(0)
            cluster.restart(0)
            for at in range(100):
                assert (await client.get(f"large/{at}".encode())).kvs[0].value == value
    finally:
        cluster.close()


async def put_until_taken(client: Client, key: bytes, value: bytes) -> None:
    """Put a key, again where its leader lost the lead meanwhile and nobody knows what became of it."""
    while True:
        try:
            await client.put(key, value)
            return
        except Unavailable:
            await asyncio.sleep(0.05)


async def test_a_leader_whose_state_waits_for_the_disk_too_long_leads_no_more(tmp_path: Path) -> None:
    value = b"x" * (1 << 20)
    cluster = Cluster(tmp_path, 3, ours=True)
    try:
        async with Client(cluster.endpoints, timeout=20) as client:
            held = await leader_of(client, cluster)
            leader = (await client.status(cluster.endpoints[held])).leader
        others = [url for at, url in enumerate(cluster.endpoints) if at != held]
        async with Client(others, timeout=20) as client, Client([cluster.endpoints[held]], timeout=20) as late:
            lease = await client.lease_grant(60)
            with writes_held(thread(cluster.processes[held].pid, "kv-backend"), tmp_path / "strace"):
                # More than may wait for that disk; its log is on another, as it were.
                for at in range(100):
                    await put_until_taken(client, f"large/{at}".encode(), value)
                async with asyncio.timeout(60):
                    while (await client.status(others[0])).leader == leader:
                        await asyncio.sleep(0.05)
                await client.lease_keepalive(lease.id)
                await client.get(b"large/99")
            assert (await late.get(b"large/99")).kvs[0].value == value
    finally:
        cluster.close()


async def test_a_large_range_is_whole_and_in_its_order_while_its_keys_change(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 1, ours=True)
    try:
        async with Client(cluster.endpoints, timeout=20) as client:
            keys = [f"k/{at:05}".encode() for at in range(5000)]
            for at in range(0, len(keys), 100):
                await asyncio.gather(*(client.put(key, key * 20) for key in keys[at : at + 100]))
            before = (await client.get(b"k/")).header.revision
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(client.get(b"k/", range_end=b"k0"))
                for key in keys[::-7]:
                    group.create_task(client.put(key, b"new"))
            whole = reading.result()
            assert [kv.key for kv in whole.kvs] == keys and whole.count == len(keys)
            assert max(kv.mod_revision for kv in whole.kvs) <= whole.header.revision
            old = await client.get(b"k/", range_end=b"k0", revision=before)
            assert [(kv.key, kv.value) for kv in old.kvs] == [(key, key * 20) for key in keys]
            last = await client.get(b"k/", range_end=b"k0", limit=3, sort=("mod", True))
            revisions = [kv.mod_revision for kv in last.kvs]
            assert len(revisions) == 3 and revisions == sorted(revisions, reverse=True)
            assert last.more and last.count == len(keys)
    finally:
        cluster.close()


async def test_a_member_that_gets_several_snapshots_has_the_last_and_keeps_it(tmp_path: Path) -> None:
    """It stands still while more is written than is kept for a member that lags."""
    value = b"x" * 120_000
    cluster = Cluster(tmp_path, 3, ours=True, flags=["--snapshot-count=200"])
    try:
        async with Client(cluster.endpoints, timeout=20) as client:
            late_one = (await leader_of(client, cluster) + 1) % 3
        others = [url for at, url in enumerate(cluster.endpoints) if at != late_one]
        async with Client(others, timeout=20) as client, Client([cluster.endpoints[late_one]], timeout=20) as late:
            await late.put(b"begin", b"1")
            for turn in range(3):
                cluster.processes[late_one].send_signal(signal.SIGSTOP)
                for at in range(30):
                    await asyncio.gather(*(client.put(f"{turn}/{at}/{n}".encode(), value) for n in range(30)))
                cluster.processes[late_one].send_signal(signal.SIGCONT)
                found = await late.get(f"{turn}/".encode(), range_end=f"{turn}0".encode(), keys_only=True)
                assert len(found.kvs) == 900
            said = (tmp_path / f"m{late_one}.log").read_text()
            assert said.count("replaced by the snapshot") > 1
            cluster.kill(late_one)
            cluster.restart(late_one)
            assert len((await late.get(b"2/", range_end=b"20", keys_only=True)).kvs) == 900
            home = tmp_path / f"m{late_one}"
            assert {path.name for path in home.iterdir()} >= {"state", "wal"}
            assert not list(home.glob("state-incoming-*")) and not (home / "outgoing").exists()
    finally:
        cluster.close()
