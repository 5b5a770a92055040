"""A supervisor on this machine, with real monitors and control groups, and a cluster that the test plays."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

from agent import journal
from agent.cgroups import Cgroup
from agent.docker_steps import ContainerFailure, UnitContainer
from agent.hierarchies import detect
from agent.identity import this_host
from agent.interfaces import ContainerRecord, DesiredState, Placement, UnitState, Unreadable
from agent.supervisor import Supervisor

PATIENCE_S = 60.0


class PlayedCluster:
    """The cluster's side: the test sets placements and waits for reports."""

    def __init__(self) -> None:
        self.wanted: dict[str, Placement | Unreadable] = {}
        self.reports: dict[str, UnitState] = {}
        self.history: list[UnitState] = []
        self.gone: set[str] = set()
        self.cut_off = False
        self._epoch = 0
        self._changed = asyncio.Condition()

    async def placements(self) -> AsyncIterator[Mapping[str, Placement | Unreadable]]:
        seen = -1
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda last=seen: self._epoch != last and not self.cut_off)  # type: ignore[misc]
                seen = self._epoch
            yield dict(self.wanted)

    async def report_units(self, changed: Sequence[UnitState], gone: Sequence[str]) -> None:
        async with self._changed:
            for state in changed:
                self.reports[state.unit] = state
                self.history.append(state)
            for name in gone:
                self.reports.pop(name, None)
                self.gone.add(name)
            self._changed.notify_all()

    async def confirm(self, unit: str) -> bool:
        return unit in self.wanted and not self.cut_off

    async def report_containers(self, changed: Sequence[ContainerRecord], gone: Sequence[str]) -> None:
        raise AssertionError("the supervisor reports no containers")

    async def place(self, name: str, text: str, desired: DesiredState = "launched") -> None:
        async with self._changed:
            self._epoch += 1
            self.wanted[name] = Placement(name, text, desired, self._epoch)
            self._changed.notify_all()

    async def garble(self, name: str, why: str) -> None:
        """Say that the unit is placed here, but not in words that can be read."""
        async with self._changed:
            self._epoch += 1
            self.wanted[name] = Unreadable(name, self._epoch, why)
            self._changed.notify_all()

    async def take_away(self, name: str) -> None:
        async with self._changed:
            self._epoch += 1
            del self.wanted[name]
            self._changed.notify_all()

    async def until(self, name: str, check: Callable[[UnitState | None], bool]) -> UnitState | None:
        """Wait until what is reported of a unit passes a check."""
        async with self._changed:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._changed.wait_for(lambda: check(self.reports.get(name)))
            except TimeoutError:
                raise AssertionError(f"{name} stays {self.reports.get(name)}; was {self.history[-8:]}") from None
            return self.reports.get(name)

    async def until_sub(self, name: str, sub: str) -> UnitState:
        found = await self.until(name, lambda state: state is not None and state.sub == sub)
        assert found is not None
        return found


class PlayedContainers:
    """The containers' side: the test says which images are there and when a container ends; requests are kept."""

    def __init__(self) -> None:
        self.images: set[str] = set()
        self.asked: list[str] = []
        self.made: dict[str, UnitContainer] = {}
        self.ends: dict[str, asyncio.Future[int]] = {}
        self.failure: Exception | None = None
        """What the next `create` meets."""
        self.isolated_at: dict[str, float] = {}
        """When their monitors ended which of them by themselves."""
        self.pull = asyncio.Event()
        self.pull.set()
        self.launch = asyncio.Event()
        self.launch.set()

    async def fetch(self, image: str, policy: str) -> None:
        self.asked.append(f"fetch {image} {policy}")
        await self.pull.wait()
        if image not in self.images:
            raise ContainerFailure(f"There is no image '{image}' here.")

    async def create(self, wanted: UnitContainer) -> str:
        if self.failure is not None:
            raise self.failure
        container = f"c{len(self.made) + 1}"
        self.made[container] = wanted
        self.asked.append(f"create {container}")
        return container

    async def find(self, name: str) -> str | None:
        named = {wanted.options.name: key for key, wanted in self.made.items()}
        return name if name in self.made else named.get(name)

    async def start(self, container: str) -> int:
        self.asked.append(f"start {container}")
        await self.launch.wait()
        self.ends[container] = asyncio.get_running_loop().create_future()
        return os.getpid()

    async def has_started(self, container: str) -> bool:
        return container in self.ends

    async def wait(self, container: str) -> int:
        return await asyncio.shield(self.ends[container])

    def end(self, container: str, code: int) -> None:
        if not self.ends[container].done():
            self.ends[container].set_result(code)

    async def stop(self, container: str, patience: float | None) -> None:
        self.asked.append(f"stop {container} {patience}")
        self.end(container, 143)

    async def signal(self, container: str, number: int | None) -> None:
        if container not in self.ends:
            raise ContainerFailure(f"Container {container} is not running")
        self.asked.append(f"signal {container} {number}")
        self.end(container, 128 + (number or 15))

    def isolated(self, unit: str, since: float) -> set[str]:
        return {key for key, at in self.isolated_at.items() if self.made[key].unit == unit and at > since}

    async def remove(self, container: str, *, force: bool, volumes: bool) -> None:
        self.asked.append(f"remove {container}")
        del self.made[container]


class Machine:
    """A supervisor that can be killed and started again over the same directories."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cluster = PlayedCluster()
        self.containers = PlayedContainers()
        self.cgroups = f"fleet-test-{os.getpid()}-{root.name}"
        self.boot = "boot-1"
        self.page = root / "presence.page"
        self._task: asyncio.Task[None] | None = None
        self.supervisor: Supervisor | None = None

    async def start(self) -> None:
        self.supervisor = Supervisor(
            self.cluster,
            self.containers,
            data_dir=self.root / "data",
            run_dir=self.root / "run",
            boot=self.boot,
            host=this_host("m" * 32, "b" * 32),
            cgroup_root=self.cgroups,
            page=self.page,
        )
        self._task = asyncio.create_task(self.supervisor.run())
        await asyncio.wait(
            [self._task, asyncio.create_task(self.supervisor.wait_adopted())], return_when="FIRST_COMPLETED"
        )

    async def kill(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])

    def lines(self, unit: str) -> list[str]:
        return [line.text for line in journal.read(self.root / "data/journal" / unit)]

    async def until_lines(self, unit: str, expected: list[str]) -> None:
        """Wait until a unit's journal is exactly this."""
        for _ in range(int(PATIENCE_S / 0.02)):
            if self.lines(unit) == expected:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"the journal of {unit} is {self.lines(unit)}, not {expected}")

    async def clean(self) -> None:
        if self._task is not None and not self._task.done():
            await self.kill()
        layout = detect()
        group = Cgroup("x", layout=layout, root=self.cgroups)
        for hierarchy in layout.hierarchies:
            top = hierarchy.mount / self.cgroups
            if top.is_dir():
                for child in top.iterdir():
                    if child.is_dir():
                        Cgroup(child.name, layout=layout, root=self.cgroups).kill()
        for hierarchy in layout.hierarchies:
            top = hierarchy.mount / self.cgroups
            for directory, _, _ in os.walk(top, topdown=False):
                await self._remove(Path(directory))
        assert not group.exists()

    async def _remove(self, group: Path) -> None:
        """Remove a control group; who was killed in it may take a moment to be gone."""
        for _ in range(int(PATIENCE_S / 0.02)):
            try:
                group.rmdir()
            except OSError:
                await asyncio.sleep(0.02)
            else:
                return
        raise AssertionError(f"{group} is still in use")
