"""Members, each on a disk of its own that loses what was not synced, and a load that remembers promises."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import signal
from collections.abc import Iterator
from pathlib import Path

from kvstore.client import Client, prefix_end
from kvstore.errors import StoreError
from tests.conformance.members import Member, Members, until
from tests.disk.mounted import LOSSES, Disk

WRITERS = 8
TIMEOUT_S = 2.0
READ_S = 60.0
WORK_S = 0.6
"""How long is written between two deaths, at least."""
LONGEST_S = 60.0
FLAGS = ["--heartbeat-interval=60", "--election-timeout=600"]
PREFIX = b"power/"


class Cluster:
    """The members, with their disks by member, and what they have acknowledged."""

    def __init__(self, members: Members, disks: dict[str, Disk], seed: int) -> None:
        self.members, self.disks = members, disks
        self.rand = random.Random(seed)
        self.promised: dict[bytes, bytes] = {}
        self._count = 0
        self._losses = itertools.cycle(LOSSES)

    def by_name(self, name: str) -> Member:
        """A member."""
        return next(one for one in self.members.members if one.name == name)

    def cut_power(self, names: list[str]) -> str:
        """Kill members and lose what they had not synced; says what was lost."""
        for name in names:
            self.by_name(name).stop(signal.SIGKILL)
        told = []
        for name in names:
            loss = next(self._losses)
            told.append(f"{name}, {loss}: {self.disks[name].lose(loss, self.rand.randrange(1 << 32))}")
        return "; ".join(told)

    def start(self, names: list[str]) -> None:
        """Start members again, and wait until they know a leader; one that does not come up is an error."""
        for name in names:
            self.by_name(name).start(self.members.initial)
        for name in names:
            one = self.by_name(name)
            assert one.process is not None

            def up(one: Member = one) -> bool:
                assert one.process is not None and one.process.poll() is None, one.log.read_text()[-2000:]
                return one.healthy()

            until(f"leader known to {name}, see {one.log}", up)

    def urls(self, names: list[str]) -> list[str]:
        """Client URLs."""
        return [self.by_name(name).client_url for name in names]

    async def write(self, names: list[str], seconds: float = WORK_S) -> None:
        """Put keys through these members, and keep which were acknowledged, while `seconds` pass."""
        end = asyncio.get_running_loop().time() + seconds

        async def work(client: Client) -> None:
            while asyncio.get_running_loop().time() < end:
                self._count += 1
                key = PREFIX + str(self._count).encode()
                value = key * self.rand.choice((1, 1, 1, 20, 300))
                with contextlib.suppress(StoreError):
                    await client.put(key, value)
                    self.promised[key] = value

        async with Client(self.urls(names), timeout=TIMEOUT_S) as client, asyncio.TaskGroup() as tasks:
            for _ in range(WRITERS):
                tasks.create_task(work(client))

    async def acknowledged_more(self, seconds: float) -> None:
        """Wait so long, and until something was acknowledged meanwhile: on a busy machine that may take longer."""
        before = len(self.promised)
        async with asyncio.timeout(LONGEST_S):
            await asyncio.sleep(seconds)
            while len(self.promised) == before:
                await asyncio.sleep(0.02)

    async def missing(self, names: list[str]) -> list[bytes]:
        """The promised keys that these members do not have, or have otherwise."""
        async with Client(self.urls(names), timeout=READ_S) as client:
            kvs = (await client.get(PREFIX, range_end=prefix_end(PREFIX))).kvs
        found = {kv.key: kv.value for kv in kvs}
        return [key for key, value in self.promised.items() if found.get(key) != value]


@contextlib.contextmanager
def cluster(directory: Path, seed: int, count: int = 3) -> Iterator[Cluster]:
    """Members on disks, running; all is unmounted at the end."""
    with contextlib.ExitStack() as stack:
        members = Members(directory, count, FLAGS)
        disks = {one.name: stack.enter_context(Disk(directory / one.name)) for one in members.members}
        stack.callback(members.close)
        for one in members.members:
            one.place = disks[one.name].path / "data"
        members.start()
        yield Cluster(members, disks, seed)


async def ended(writing: asyncio.Task[None]) -> None:
    """Give up writes that go on, since who would answer them is gone."""
    writing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await writing


async def round_of_one(one: Cluster) -> str:
    """The leader's power goes, when only it and one other have the last writes; then that other is gone as well.

    So what was promised since is on the disk of the member that lost its power, or nowhere.
    """
    leader = one.members.leader().name
    others = [member.name for member in one.members.members if member.name != leader]
    one.rand.shuffle(others)
    away, beside = others
    one.by_name(away).stop(signal.SIGKILL)
    writing = asyncio.create_task(one.write([leader, beside], LONGEST_S))
    await one.acknowledged_more(WORK_S)
    told = await asyncio.to_thread(one.cut_power, [leader])
    one.by_name(beside).stop(signal.SIGKILL)
    await ended(writing)
    await asyncio.to_thread(one.start, [away, leader])
    lost = await one.missing([leader])
    assert not lost, f"{told}; gone: {lost[:10]} of {len(lost)}"
    await asyncio.to_thread(one.start, [beside])
    return f"leader {told}"


async def round_of_all(one: Cluster) -> str:
    """The power of all goes at once."""
    names = [member.name for member in one.members.members]
    writing = asyncio.create_task(one.write(names, LONGEST_S))
    await one.acknowledged_more(WORK_S)
    told = await asyncio.to_thread(one.cut_power, names)
    await ended(writing)
    await asyncio.to_thread(one.start, names)
    for name in names:
        lost = await one.missing([name])
        assert not lost, f"{told}; gone at {name}: {lost[:10]} of {len(lost)}"
    return told


async def campaign(one: Cluster, rounds: int) -> None:
    """Rounds of either kind; each says on standard output what was lost."""
    for number in range(rounds):
        before = len(one.promised)
        told = await (round_of_all if number % 3 == 2 else round_of_one)(one)
        print(f"round {number}: {len(one.promised) - before} writes promised; {told}", flush=True)
        assert len(one.promised) > before, "nothing was acknowledged"
