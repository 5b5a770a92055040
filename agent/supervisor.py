"""The event loop of a machine: placements in, units started and stopped, states reported. It may die at any time.

What is to be done is decided by `reconcile`; starts and stops wait for their turn in `job_queue`, and a unit's own life
is driven by `unit_runner`.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

from agent import adopt
from agent.docker_steps import ContainerRunner
from agent.guard import Guard
from agent.hierarchies import Layout, detect, own_root
from agent.interfaces import Cluster, Placement, UnitState
from agent.job_queue import JobQueue
from agent.reconcile import Found, Halt, Launch, Load, SetEpoch, Step, Unload, reconcile
from agent.records import Records, UnitRecord
from agent.unit_runner import Site, UnitRunner
from agent.units import jobs
from agent.units.errors import UnitError
from agent.units.names import Host
from agent.units.spec import parse_unit
from agent.wanted import Wanted

log = logging.getLogger(__name__)


class Supervisor:
    """All units of this machine."""

    def __init__(
        self,
        cluster: Cluster,
        containers: ContainerRunner,
        *,
        data_dir: Path,
        run_dir: Path,
        boot: str,
        host: Host,
        layout: Layout | None = None,
        cgroup_root: str | None = None,
        page: Path | None = None,
    ) -> None:
        """`boot` is what `identity.boot()` says; journals go to `data_dir/journal`, records to `data_dir/units`.
        `page` is where fleet-presence writes when the cluster answered last."""
        self._cluster = cluster
        self._runners: dict[str, UnitRunner] = {}
        self._wake = asyncio.Event()
        self._jobs = JobQueue(self._runners, self._mark, self._wake.set)
        self._guard = Guard(cluster, containers, page, self._runners, self._jobs.wish)
        layout = layout or detect()
        self.site = Site(
            records=Records(data_dir / "units"),
            run_dir=run_dir / "monitors",
            journal_dir=data_dir / "journal",
            boot=boot,
            host=host,
            layout=layout,
            cgroup_root=own_root(layout) if cgroup_root is None else cgroup_root,
            containers=containers,
            page=page,
            permit=self._guard.permit,
        )
        self._wanted = Wanted(self.site.records)
        self._known = False
        """Placements came from the cluster since this start."""
        self._bad: dict[str, UnitState] = {}
        """Units whose file can't be read here, or whose record."""
        self._rested: dict[str, UnitRecord] = {}
        """Units of an earlier boot of which the cluster has not said yet whether they belong here."""
        self._unread: set[str] = set()
        """Those of them whose record can't be read while something of theirs runs."""
        self._dirty: set[str] = set()
        self._gone: set[str] = set()
        self._stale = True
        """Something changed that reconcile has to look at; a unit's ordinary steps do not."""
        self._adopted = asyncio.Event()

    async def run(self) -> None:
        """Adopt what runs, then obey the cluster until cancelled. Units go on when it ends."""
        await asyncio.to_thread(self.site.run_dir.mkdir, parents=True, exist_ok=True)
        await self._adopt()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow_placements(), name="placements")
                group.create_task(self._turn(), name="supervisor")
                group.create_task(self._guard.run(), name="isolation")
                group.create_task(adopt.watch(self.site, self._unread, self._look_again), name="unread")
        finally:
            await asyncio.gather(*(runner.close() for runner in self._runners.values()))

    async def wait_adopted(self) -> None:
        """Return when what earlier fleetds left is taken over."""
        await self._adopted.wait()

    def _state(self, name: str) -> UnitState | None:
        """What a unit does; None for one that is not here."""
        unreadable = self._wanted.unreadable.get(name)
        if name in self._bad:
            return self._bad[name]
        if (runner := self._runners.get(name)) is not None:
            state = runner.status()
            return state if unreadable is None else replace(state, why=unreadable.why)
        if unreadable is not None:
            return UnitState(name, unreadable.epoch, "error", "inactive", "dead", "resources", why=unreadable.why)
        return None

    def units(self) -> set[str]:
        """The units that are on this machine, or were before a boot since which the cluster has not spoken."""
        return set(self._runners) | set(self._bad) | set(self._rested)

    async def written_journals(self) -> set[str]:
        """Folders that processes of units write now, known once earlier fleetds' are adopted; of a bad unit all."""
        await self.wait_adopted()
        known = [process for runner in self._runners.values() for process in runner.record.processes]
        return {one.log_dir for one in known} | {str(self.site.journal_dir / name) for name in self._bad}

    async def _adopt(self) -> None:
        site = self.site
        findings = await asyncio.to_thread(adopt.find, site)
        known = {process.run_dir for record in findings.alive.values() for process in record.processes}
        await adopt.sweep(site.run_dir, known, findings.unread)
        await self._wanted.recall()
        for record in findings.alive.values():
            runner = self._take_in(record)
            if runner is not None:
                await runner.adopt()
        for name, complaint in findings.unread.items():
            self._unread.add(name)
            self._bad[name] = UnitState(name, 0, "error", "active", "running", why=complaint)
            self._mark(name)
        self._rested = dict(findings.rested)
        known_good = {name: place for name, place in self._wanted.placements.items() if name not in self._bad}
        isolated = {name: it for name, it in known_good.items() if adopt.runs_when_isolated(it, site.host)}
        for step in reconcile(isolated, self._found()):
            if not isinstance(step, Unload):
                await self._carry_out(step)
        self._adopted.set()
        self._wake.set()

    def _take_in(self, record: UnitRecord) -> UnitRunner | None:
        try:
            unit = parse_unit(record.unit, record.text, host=self.site.host)
            if unit.service is None:
                raise UnitError(f"{record.unit}: units of the type .{unit.parts.kind} can't be run yet.")
        except UnitError as error:
            state = UnitState(record.unit, record.epoch, "error", "inactive", "dead", "resources", why=str(error))
            self._bad[record.unit] = state
            self._mark(record.unit)
            return None
        runner = UnitRunner(self.site, record, unit, self._changed)
        place = self._wanted.placements.get(record.unit)
        runner.desired_launched = record.state.next_slot > 1 and place is not None and place.desired == "launched"
        self._runners[record.unit] = runner
        self._jobs.units_changed()
        self._mark(record.unit)
        return runner

    async def _follow_placements(self) -> None:
        async for placements in self._cluster.placements():
            for name in await self._wanted.take(placements):
                self._gone.add(name)
                self._dirty.add(name)
            self._known = self._stale = True
            self._wake.set()

    async def _turn(self) -> None:
        """Each round: reconcile, let jobs go on, report; then wait for a change."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._known and self._stale:
                self._stale = False
                await self._reconcile()
            if any(runner.leaving for runner in self._jobs.advance()):
                self._look_again()
            await self._report()

    def _changed(self, runner: UnitRunner) -> None:
        section = runner.unit.unit
        if runner.state.at_rest and (runner.leaving or section.wants or jobs.needs(runner.unit)):
            self._stale = True
        self._mark(runner.name)

    def _look_again(self) -> None:
        self._stale = True
        self._wake.set()

    def _mark(self, name: str) -> None:
        self._dirty.add(name)
        self._wake.set()

    async def _reconcile(self) -> None:
        await adopt.forget(self.site, self._rested, self._wanted.placements.keys() | self._wanted.unreadable.keys())
        for name in list(self._bad):
            place = self._wanted.placements.get(name)
            if name in self._unread and not await self._end_unread(name, place):
                continue
            if place is None or place.epoch != self._bad[name].epoch:
                del self._bad[name]
                self._gone.add(name)
        for runner in list(self._runners.values()):
            if runner.leaving and runner.state.at_rest and not self._jobs.has(runner.name):
                del self._runners[runner.name]
                self._jobs.units_changed()
                self._stale = True
                await runner.remove()
                self._gone.add(runner.name)
        wanted = {name: place for name, place in self._wanted.placements.items() if name not in self._bad}
        found = {name: here for name, here in self._found().items() if not self._wanted.left_alone(name)}
        for step in reconcile(wanted, found):
            await self._carry_out(step)
            await asyncio.sleep(0)  # of hundreds each looks at all units: others' turn comes in between

    async def _end_unread(self, name: str, place: Placement | None) -> bool:
        """Leave alone what runs without a readable record as long as it does and is wanted; True when it is over."""
        kept = place.desired == "launched" if place is not None else self._wanted.left_alone(name)
        if kept and await adopt.lives(self.site, name):
            if place is not None and place.epoch != self._bad[name].epoch:
                self._bad[name] = replace(self._bad[name], epoch=place.epoch)
                self._mark(name)
            return False
        if not await adopt.end(self.site, name):
            return False
        self._unread.discard(name)
        self._bad[name] = replace(self._bad[name], epoch=-1)
        return True

    async def _carry_out(self, step: Step) -> None:
        runner = self._runners.get(step.unit)
        match step:
            case Load(name):
                place = self._wanted.placements[name]
                self._gone.discard(name)
                record = UnitRecord(name, place.text, place.epoch, self.site.boot)
                if (rested := self._rested.pop(name, None)) is not None:
                    record = replace(record, last_container=rested.last_container)
                taken = self._take_in(record)
                if taken is not None:
                    await taken.save()
                    self._jobs.retry_refused()
            case Launch(name):
                if runner is not None:
                    runner.desired_launched = True
                    self._jobs.wish(name, "start")
            case Halt(name) if runner is not None:
                runner.desired_launched = False
                self._jobs.wish(name, "stop")
            case Unload(name) if runner is not None:
                runner.leaving = True
                runner.desired_launched = False
                self._jobs.wish(name, "stop")
                self._stale = True
                self._mark(name)
            case SetEpoch(name) if runner is not None:
                await runner.set_epoch(self._wanted.placements[name].epoch)
            case _:
                pass

    async def _report(self) -> None:
        changed, self._dirty = self._dirty, set()
        gone, self._gone = self._gone, set()
        states = [state for name in sorted(changed) if (state := self._state(name)) is not None]
        for state in states:
            if state.active in ("inactive", "failed"):
                self._jobs.ended(state.unit)
        removed = [name for name in gone if self._state(name) is None]
        if states or removed:
            await self._cluster.report_units(states, removed)

    def _found(self) -> dict[str, Found]:
        """What is here, as reconcile sees it."""
        live = [runner.unit for name, runner in self._runners.items() if self._lives(name, runner)]
        needed = {name for unit in live for name in (*jobs.needs(unit), *unit.unit.wants)}
        failed = [runner.unit for runner in self._runners.values() if runner.state.sub == "failed"]
        needed |= {name for unit in failed for name in unit.unit.on_failure}
        return {
            name: Found(
                runner.record.text,
                runner.record.epoch,
                running=not runner.state.at_rest or runner.busy,
                leaving=runner.leaving,
                desired="launched" if runner.desired_launched else "loaded",
                needed=name in needed,
            )
            for name, runner in self._runners.items()
        }

    def _lives(self, name: str, runner: UnitRunner) -> bool:
        return not runner.state.at_rest or runner.busy or self._jobs.starts(name)
