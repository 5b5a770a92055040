"""A fleetd small enough to be killed: a supervisor as a process. Arguments: root, control group, unit file."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from agent.identity import this_host
from agent.interfaces import ContainerRecord, Placement, UnitState
from agent.supervisor import Supervisor
from tests.unit.agent.machine.fix_machine import PlayedContainers


class FileCluster:
    """Placements from one file, read once; reports appended to another."""

    def __init__(self, root: Path, unit: Path) -> None:
        self.root = root
        self.unit = unit

    async def placements(self) -> AsyncIterator[Mapping[str, Placement]]:
        yield {self.unit.name: Placement(self.unit.name, self.unit.read_text(), "launched", 1)}
        await asyncio.Event().wait()

    async def report_units(self, changed: Sequence[UnitState], gone: Sequence[str]) -> None:
        with open(self.root / "reports", "a") as file:
            for state in changed:
                file.write(json.dumps([state.sub, state.result, state.exit_status, state.why]) + "\n")

    async def confirm(self, unit: str) -> bool:
        return unit == self.unit.name

    async def report_containers(self, changed: Sequence[ContainerRecord], gone: Sequence[str]) -> None:
        raise AssertionError("the supervisor reports no containers")


def main() -> None:
    root, cgroup, unit = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    supervisor = Supervisor(
        FileCluster(root, unit),
        PlayedContainers(),
        data_dir=root / "data",
        run_dir=root / "run",
        boot="boot-1",
        host=this_host("m" * 32, "b" * 32),
        cgroup_root=cgroup,
    )
    asyncio.run(supervisor.run())


main()
