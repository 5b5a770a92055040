"""What happens to the members while clients work: faults, one or two at a time, chosen by a seed.

A fault that takes away what a majority has synced would lose writes rightly. So a log is damaged only once the others
have all that the killed member can have promised: when a write that began after its death was acknowledged.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from tests.disk.mounted import LOSSES
from tests.linear.history import Death
from tests.linear.load import Load
from tests.linear.world import NAMES, World, ended

SHORT_S = (0.2, 2.5)
"""How long a fault lasts. Elections take about 0.6 to 1.5 s."""
LONG_S = (1.3, 2.8)
"""How long a member is away that may still think that it leads: others lead by then, and clients asked it meanwhile."""
CALM_S = (0.2, 0.8)
LEADER_SHARE = 0.7
HARM_WAIT_S = 10.0
MAX_TORN = 3000
"""Bytes of a log's end that are damaged, at most: a frame or a few."""
JUMPS_S = (0.3, 2.0, 60.0, 3600.0, 3e7)
LONGEST_UPTIME_S = 10_000_000
Fault = Callable[[], Awaitable[str]]


class Faults:
    """Does one fault after the other, and prints what was done, by the time since the beginning."""

    def __init__(self, world: World, load: Load, seed: int) -> None:
        self._world, self._load = world, load
        self._rand = random.Random(f"faults/{seed}")
        self._cuts: dict[int, frozenset[tuple[str, str]]] = {}
        self._down: set[str] = set()
        self._begun = time.monotonic()
        self.deaths: list[Death] = []
        self._done = 0

    async def run(self, seconds: float, only_clocks: bool = False) -> None:
        """Faults for so long, each kind at least once if there is time; at the end all but clocks is whole again."""
        alone: tuple[Fault, ...] = (self.torn_log, self.kill_all)
        any_time: tuple[Fault, ...] = (self.kill, self.power, self.freeze, self.isolate, self.one_way, self.cut_pair)
        if self._world.clocks:
            any_time = (*any_time, self.jump)
        often: tuple[Fault, ...] = (self.freeze, self.isolate)
        if only_clocks:
            alone, any_time, often = (), (self.jump,), ()
        waiting: list[Fault] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.sleep(self._rand.uniform(*CALM_S))
            if not waiting:
                waiting = [*alone, *any_time, *often]
                self._rand.shuffle(waiting)
            chosen = [waiting.pop()]
            if chosen[0] not in alone and waiting and waiting[-1] not in alone and self._rand.random() < 0.3:
                chosen.append(waiting.pop())
            await asyncio.gather(*(self._do(fault) for fault in chosen))

    async def _do(self, fault: Fault) -> None:
        began = time.monotonic() - self._begun
        what = await fault()
        self._done += 1
        print(f"{began:.1f} to {time.monotonic() - self._begun:.1f} s: {what}", flush=True)

    async def _last(self, span: tuple[float, float] = SHORT_S) -> None:
        await asyncio.sleep(self._rand.uniform(*span))

    def _victim(self) -> str:
        """A member that runs, mostly the leader."""
        running = [name for name in NAMES if name not in self._down]
        leader = self._world.leader() if self._rand.random() < LEADER_SHARE else None
        return leader if leader in running and leader is not None else self._rand.choice(running)

    def _kill(self, names: list[str], power: bool = False) -> str:
        """Kill members; says how, for with `power` their disks lose what was not synced, if they can."""
        self._down.update(names)
        self._world.kill(names)
        self.deaths += [Death(name, time.monotonic_ns()) for name in names]
        if not power or not self._world.disks:
            return "killed"
        told = []
        for name in names:
            loss = self._rand.choice(LOSSES)
            told.append(f"{loss}, {self._world.disks[name].lose(loss, self._rand.randrange(1 << 32))}")
        return f"without power ({'; '.join(told)})"

    def _start(self, names: list[str]) -> None:
        for clock in [self._world.clocks[name] for name in names if name in self._world.clocks]:
            clock.uptime_s = self._rand.randrange(LONGEST_UPTIME_S)
        self._world.start(names)
        self._down.difference_update(names)

    async def kill(self, power: bool = False) -> str:
        """A member is killed, and started again."""
        name = self._victim()
        how = self._kill([name], power)
        await self._last()
        self._start([name])
        return f"{name} {how}"

    async def power(self) -> str:
        """A member loses its power."""
        return await self.kill(power=True)

    async def kill_all(self) -> str:
        """All are killed at once, with their power or without, and started one after the other."""
        names = self._rand.sample(NAMES, len(NAMES))
        how = self._kill(names, power=self._rand.random() < 0.5)
        for name in names:
            await asyncio.sleep(self._rand.uniform(0, 0.5))
            self._start([name])
        return f"all {how}"

    async def freeze(self) -> str:
        """A member stands still, and goes on as if no time had passed."""
        name = self._victim()
        self._world.freeze(name, True)
        try:
            await self._last(LONG_S)
        finally:
            if name not in self._down:
                self._world.freeze(name, False)
        return f"{name} stood still"

    async def isolate(self) -> str:
        """A member is cut off from the others."""
        name = self._victim()
        others = [one for one in NAMES if one != name]
        return await self._cut(f"{name} cut off", [(name, one) for one in others] + [(one, name) for one in others])

    async def one_way(self) -> str:
        """A member's messages get through, and none to it; or the other way round."""
        name = self._victim()
        others = [one for one in NAMES if one != name]
        if self._rand.random() < 0.5:
            return await self._cut(f"{name} deaf", [(one, name) for one in others])
        return await self._cut(f"{name} mute", [(name, one) for one in others])

    async def cut_pair(self) -> str:
        """Two members lose each other, one way or both; the third reaches both."""
        one, other = self._rand.sample(NAMES, 2)
        pairs = [(one, other)] if self._rand.random() < 0.5 else [(one, other), (other, one)]
        return await self._cut(" and ".join(f"{a} to {b}" for a, b in pairs) + " cut", pairs)

    async def _cut(self, what: str, pairs: list[tuple[str, str]]) -> str:
        number = self._done * 10 + len(self._cuts)
        self._cuts[number] = frozenset(pairs)
        self._world.cut(frozenset().union(*self._cuts.values()))
        await self._last()
        del self._cuts[number]
        self._world.cut(frozenset().union(*self._cuts.values()))
        return what

    async def jump(self) -> str:
        """The wall clock of a member, or of all by as much, is set forwards or back, and stays there."""
        names = list(NAMES) if self._rand.random() < 0.2 else [self._victim()]
        seconds = self._rand.choice(JUMPS_S) * self._rand.choice((-1, 1))
        for name in names:
            self._world.clocks[name].jump(seconds)
        await self._last()
        return f"the clock of {', '.join(names)} set by {seconds:+.1f} s"

    async def torn_log(self) -> str:
        """A member is killed, and the end of its log is not what it wrote.

        Followers too: to their leader they come back without what it knows them to have.
        """
        name = self._rand.choice(NAMES)
        self._kill([name])
        died = time.monotonic_ns()
        end = time.monotonic() + HARM_WAIT_S
        while self._load.last_write_began <= died and time.monotonic() < end:
            await asyncio.sleep(0.05)
        harm = "nothing, since the others took no write"
        if self._load.last_write_began > died:
            harm = self._tear(name)
        self._start([name])
        return f"{name} killed, its log: {harm}"

    def _tear(self, name: str) -> str:
        path, end = self._world.tail(name)
        cut = self._rand.randrange(1, min(MAX_TORN, end // 2))
        with path.open("r+b") as log:
            match self._rand.choice(("cut", "flipped", "begun")):
                case "cut":
                    log.truncate(end - cut)
                    return f"cut by {cut} bytes"
                case "flipped":
                    # Not in the last byte: zeros behind it may be its own.
                    log.seek(end - 2)
                    byte = log.read(1)[0]
                    log.seek(end - 2)
                    log.write(bytes([byte ^ (1 << self._rand.randrange(8))]))
                    return "a bit flipped near its end"
                case _:
                    log.seek(end)
                    log.write(self._rand.randbytes(cut))
                    return f"{cut} bytes of rubbish behind it"

    def alive(self) -> list[str]:
        """Members that ended without having been killed."""
        return [name for name, one in self._world.members.items() if name not in self._down and ended(one)]
