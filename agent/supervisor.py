"""The event loop of a machine: placements in, units started and stopped, states reported. It may die at any time.

What is to be done is decided by `reconcile` and `units.jobs`; a unit's own life is driven by `unit_runner`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from agent import adopt
from agent.cgroups import Layout, detect, own_root
from agent.docker_steps import ContainerRunner
from agent.guard import Guard
from agent.interfaces import Cluster, Placement, UnitState
from agent.processes import boot_seconds
from agent.reconcile import Adopt, Found, Halt, Launch, Load, Step, Unload, reconcile
from agent.records import RecordError, Records, UnitRecord
from agent.unit_runner import Site, UnitRunner
from agent.units import jobs, life
from agent.units.errors import UnitError
from agent.units.jobs import DependencyError, Job
from agent.units.model import Unit
from agent.units.names import Host
from agent.units.spec import parse_unit

log = logging.getLogger(__name__)


def this_host(machine_id: str, boot_id: str) -> Host:
    """What the specifiers stand for on this machine."""
    kernel = os.uname()
    return Host(kernel.nodename, machine_id, boot_id, kernel.release)


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
            permit=self._permit,
        )
        self._cluster = cluster
        self._runners: dict[str, UnitRunner] = {}
        self._guard = Guard(cluster, page, self._runners, self._wish)
        self._wanted: dict[str, Placement] = {}
        self._known = False
        """Placements came from the cluster since this start."""
        self._bad: dict[str, UnitState] = {}
        """Units whose file can't be read here, or whose record."""
        self._unread: set[str] = set()
        """Those of them whose record can't be read while something of theirs runs."""
        self._jobs: dict[str, Job] = {}
        self._begun: set[str] = set()
        self._dirty: set[str] = set()
        self._gone: set[str] = set()
        self._stale = True
        """Something changed that reconcile has to look at; a unit's ordinary steps do not."""
        self._order: dict[str, frozenset[str]] | None = None
        """For each unit those that an order or a conflict ties to it; None when units came or went."""
        self._wake = asyncio.Event()
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

    def states(self) -> dict[str, UnitState]:
        """What every unit here does, now."""
        return {name: runner.status() for name, runner in self._runners.items()} | self._bad

    def unit(self, name: str) -> Unit | None:
        """The unit of that name that is on this machine."""
        runner = self._runners.get(name)
        return runner.unit if runner is not None else None

    async def _adopt(self) -> None:
        site = self.site
        findings = await asyncio.to_thread(adopt.find, site)
        known = {process.run_dir for record in findings.alive.values() for process in record.processes}
        await adopt.sweep(site.run_dir, known, findings.unread)
        try:
            self._wanted = await asyncio.to_thread(site.records.load_placements)
        except RecordError as error:
            log.error("%s", error)
        for record in findings.alive.values():
            runner = self._take_in(record)
            if runner is not None:
                await runner.adopt()
        for name, complaint in findings.unread.items():
            self._unread.add(name)
            self._bad[name] = UnitState(name, 0, "error", "active", "running", why=complaint)
            self._mark(name)
        for name in findings.rested:
            await asyncio.to_thread(site.records.remove, name)
        known_good = {name: place for name, place in self._wanted.items() if name not in self._bad}
        isolated = {name: it for name, it in known_good.items() if adopt.runs_when_isolated(it, site.host)}
        for step in reconcile(isolated, self._found()):
            if not isinstance(step, Unload):
                await self._carry_out(step)
        self._adopted.set()
        self._wake.set()

    async def _permit(self, unit: Unit) -> None:
        await self._guard.permit(unit)

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
        place = self._wanted.get(record.unit)
        runner.desired_launched = record.state.next_slot > 1 and place is not None and place.desired == "launched"
        self._runners[record.unit] = runner
        self._order = None
        self._mark(record.unit)
        return runner

    async def _follow_placements(self) -> None:
        async for placements in self._cluster.placements():
            self._wanted = dict(placements)
            self._known = self._stale = True
            try:
                await asyncio.to_thread(self.site.records.save_placements, self._wanted)
            except RecordError as error:
                log.error("%s", error)
            self._wake.set()

    async def _turn(self) -> None:
        """Each round: reconcile, let jobs go on, report; then wait for a change."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._known and self._stale:
                self._stale = False
                await self._reconcile()
            self._advance_jobs()
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
        for name in list(self._bad):
            place = self._wanted.get(name)
            if name in self._unread and not await self._end_unread(name, place):
                continue
            if place is None or place.epoch != self._bad[name].epoch:
                del self._bad[name]
                self._gone.add(name)
        for runner in list(self._runners.values()):
            if runner.leaving and runner.state.at_rest and runner.name not in self._jobs:
                del self._runners[runner.name]
                self._order, self._stale = None, True
                await runner.remove()
                self._gone.add(runner.name)
        wanted = {name: place for name, place in self._wanted.items() if name not in self._bad}
        for step in reconcile(wanted, self._found()):
            await self._carry_out(step)

    async def _end_unread(self, name: str, place: Placement | None) -> bool:
        """Leave alone what runs without a readable record as long as it does and is wanted; True when it is over."""
        if place is not None and place.desired == "launched" and await adopt.lives(self.site, name):
            if place.epoch != self._bad[name].epoch:
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
                place = self._wanted[name]
                self._gone.discard(name)
                record = UnitRecord(name, place.text, place.epoch, self.site.boot)
                taken = self._take_in(record)
                if taken is not None:
                    await taken.save()
                    self._retry_refused()
            case Launch(name):
                if runner is not None:
                    runner.desired_launched = True
                    self._wish(name, "start")
            case Halt(name) if runner is not None:
                runner.desired_launched = False
                self._wish(name, "stop")
            case Unload(name) if runner is not None:
                runner.leaving = True
                runner.desired_launched = False
                self._wish(name, "stop")
                self._stale = True
                self._mark(name)
            case Adopt(name) if runner is not None:
                await runner.set_epoch(self._wanted[name].epoch)
            case _:
                pass

    def _retry_refused(self) -> None:
        """A unit came: those that were refused for want of another may be able to start now."""
        for name, runner in self._runners.items():
            if runner.refusal and runner.desired_launched and runner.state.at_rest:
                self._wish(name, "start")

    def _units(self) -> Mapping[str, Unit]:
        return {name: runner.unit for name, runner in self._runners.items()}

    def _active(self) -> set[str]:
        return {name for name, runner in self._runners.items() if not runner.state.at_rest}

    def _wish(self, name: str, verb: jobs.Verb) -> None:
        """Add a wish's jobs; a newer job of a unit replaces the one that waits."""
        runner = self._runners[name]
        try:
            added = jobs.transaction(self._units(), name, verb, self._active() - {name})
        except DependencyError as error:
            runner.refusal = str(error)
            self._mark(name)
            return
        runner.refusal = ""
        for job in added:
            if self._jobs.get(job.unit) != job:
                self._jobs[job.unit] = job
                self._begun.discard(job.unit)
                self._wake.set()

    def _advance_jobs(self) -> None:
        """Begin each job that nothing blocks, and take away those that are over."""
        units = self._units()
        progress = True
        while progress:
            progress = False
            for name, job in list(self._jobs.items()):
                runner = self._runners.get(name)
                if runner is None:
                    del self._jobs[name]
                elif name in self._begun:
                    progress = self._finish(job, runner) or progress
                elif not jobs.blockers(units, job, self._related_jobs(name, units)):
                    self._begin(job, runner, units)
                    progress = True

    def _related_jobs(self, name: str, units: Mapping[str, Unit]) -> list[Job]:
        if self._order is None:
            self._order = jobs.related(units)
        return [self._jobs[other] for other in self._order.get(name, ()) if other in self._jobs]

    def _begin(self, job: Job, runner: UnitRunner, units: Mapping[str, Unit]) -> None:
        if job.verb == "start":
            for needed in jobs.needs(runner.unit):
                other = self._runners.get(needed)
                if other is not None and needed not in self._jobs and other.state.at_rest and needed in units:
                    runner.refusal = f"{needed}, which it requires, did not start: {other.status().why}"
                    del self._jobs[job.unit]
                    self._mark(job.unit)
                    return
        self._begun.add(job.unit)
        if job.verb == "start":
            runner.feed(life.Start(boot_seconds()))
        elif not runner.state.at_rest:
            runner.feed(life.Stop(boot_seconds()))

    def _finish(self, job: Job, runner: UnitRunner) -> bool:
        if runner.busy:
            return False
        state = runner.state
        if job.verb == "start":
            over = state.active == "active" or state.at_rest or state.sub == "auto-restart"
        else:
            over = state.at_rest
        if over:
            del self._jobs[job.unit]
            self._begun.discard(job.unit)
            if runner.leaving:
                self._look_again()
        return over

    async def _report(self) -> None:
        changed, self._dirty = self._dirty, set()
        gone, self._gone = self._gone, set()
        states = [self._runners[name].status() for name in changed if name in self._runners]
        states += [self._bad[name] for name in changed if name in self._bad]
        for state in states:
            if state.active in ("inactive", "failed"):
                self._stop_bound(state.unit)
            if state.active == "failed":
                self._start_on_failure(state.unit)
        removed = [name for name in gone if name not in self._runners and name not in self._bad]
        if states or removed:
            await self._cluster.report_units(states, removed)

    def _stop_bound(self, name: str) -> None:
        """BindsTo=: what is bound to a unit stops when that one is gone, however it went."""
        for bound in jobs.followers(self._units(), name, explicit=False):
            runner = self._runners.get(bound)
            if runner is not None and not runner.state.at_rest and bound not in self._jobs:
                self._wish(bound, "stop")
                runner.refusal = f"It is bound to {name} (BindsTo=), which stopped."

    def _start_on_failure(self, name: str) -> None:
        """OnFailure=: start those units that are here, once for each failure."""
        failed = self._runners[name]
        if failed.failure_told == failed.record.since:
            return
        failed.failure_told = failed.record.since
        for helper in failed.unit.unit.on_failure:
            runner = self._runners.get(helper)
            if runner is not None and runner.state.at_rest and not runner.leaving:
                self._wish(helper, "start")

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
        return not runner.state.at_rest or runner.busy or self._jobs.get(name) == Job(name, "start")
