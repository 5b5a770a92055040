"""Holds units to StopWhenIsolated= while fleetd lives: each start waits for the cluster's word, a machine that was not
answered for too long stops them in their own order, and starts them again when the cluster answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from agent import isolation
from agent.docker_steps import ContainerRunner
from agent.interfaces import Cluster
from agent.unit_runner import UnitRunner
from agent.units.jobs import Verb
from agent.units.model import Unit

log = logging.getLogger(__name__)

IDLE_S = 1.0
"""How often a machine looks whether it has such units at all."""


class Guard:
    """Of all units of a machine."""

    def __init__(
        self,
        cluster: Cluster,
        containers: ContainerRunner,
        page: Path | None,
        runners: Mapping[str, UnitRunner],
        wish: Callable[[str, Verb], None],
    ) -> None:
        """`page` is the presence's; `wish` adds a job to start or stop a unit."""
        self._cluster = cluster
        self._containers = containers
        self._page = page
        self._runners = runners
        self._wish = wish
        self._held: set[str] = set()
        self._replaced: set[str] = set()
        """Containers for which their unit was started anew: once, whatever the clock does."""

    async def permit(self, unit: Unit) -> None:
        """Return when the unit may start: at once, or when the cluster answers that it is placed here."""
        limit = unit.fleet.stop_when_isolated
        if limit is None:
            return
        while True:
            if isolation.age(self._page) < limit and await self._cluster.confirm(unit.name):
                return
            await asyncio.sleep(isolation.LOOK_S)

    async def run(self) -> None:
        """Look after them until cancelled."""
        while True:
            bound = [r for r in self._runners.values() if r.unit.fleet.stop_when_isolated is not None]
            age = isolation.age(self._page) if bound else 0.0
            for runner in bound:
                self._look(runner, age)
            await asyncio.sleep(isolation.LOOK_S if bound else IDLE_S)

    def _look(self, runner: UnitRunner, age: float) -> None:
        name = runner.name
        resting = runner.state.at_rest and not runner.busy
        if age >= (runner.unit.fleet.stop_when_isolated or 0.0):
            # What has no main process yet waits for its permit, or will; one that has none any more (RemainAfterExit=)
            # may have left a container.
            runs = runner.state.main_pid is not None or runner.state.sub == "exited"
            if not resting and runs and name not in self._held:
                log.warning("%s is stopped: no answer of the cluster for %.1f s", name, age)
                self._hold(runner)
        elif resting and (name in self._held or runner.record.reason == isolation.REASON):
            self._held.discard(name)
            if runner.desired_launched and not runner.leaving:
                log.info("%s starts again when the cluster confirms its placement", name)
                self._wish(name, "start")
        elif runner.state.sub == "exited" and not runner.busy and runner.desired_launched and name not in self._held:
            ended = self._containers.isolated(name, runner.record.since) - self._replaced
            if ended:
                log.warning("%s is stopped: its container was, by itself, when the cluster did not answer", name)
                self._replaced |= ended
                self._hold(runner)

    def _hold(self, runner: UnitRunner) -> None:
        """Stop a unit until the cluster answers."""
        self._held.add(runner.name)
        self._wish(runner.name, "stop")
        runner.refusal = isolation.REASON
