"""The jobs of a machine's units: what wishes bring along waits here for its turn, and is begun when nothing blocks it.

Which jobs a wish has, and what blocks one, is decided by `units.jobs`; what a begun job does to its unit, by the unit's
runner. It knows no placements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agent.processes import boot_seconds
from agent.unit_runner import UnitRunner
from agent.units import jobs, life
from agent.units.jobs import DependencyError, Job, Verb
from agent.units.model import Unit


class JobQueue:
    """All jobs that are not over. At most one a unit: a newer one takes the place of the one that waits."""

    def __init__(
        self, runners: Mapping[str, UnitRunner], mark: Callable[[str], None], wake: Callable[[], None]
    ) -> None:
        """`runners` are the supervisor's, by unit. `mark` is called with a unit of which there is something to tell,
        `wake` when `advance` has something to do."""
        self._runners = runners
        self._mark = mark
        self._wake = wake
        self._jobs: dict[str, Job] = {}
        self._begun: set[str] = set()
        self._order: dict[str, frozenset[str]] | None = None
        """For each unit those that an order or a conflict ties to it; None when units came or went."""

    def units_changed(self) -> None:
        """To be called when a unit came or went."""
        self._order = None

    def has(self, unit: str) -> bool:
        """Whether a job of the unit is not over."""
        return unit in self._jobs

    def starts(self, unit: str) -> bool:
        """Whether the unit is being started, or waits for that."""
        return self._jobs.get(unit) == Job(unit, "start")

    def wish(self, name: str, verb: Verb) -> None:
        """Add a wish's jobs. One that can't be met for want of another unit is noted as the unit's refusal."""
        runner = self._runners[name]
        active = {other for other, body in self._runners.items() if not body.state.at_rest}
        try:
            added = jobs.transaction(self._units(), name, verb, active - {name})
        except DependencyError as error:
            runner.refusal = str(error)
            self._mark(name)
            return
        runner.refusal = ""
        for job in added:
            if self._jobs.get(job.unit) != job:
                self._jobs[job.unit] = job
                self._begun.discard(job.unit)
                self._wake()

    def retry_refused(self) -> None:
        """A unit came: those that were refused for want of another may be able to start now."""
        for name, runner in self._runners.items():
            if runner.refusal and runner.desired_launched and runner.state.at_rest:
                self.wish(name, "start")

    def advance(self) -> list[UnitRunner]:
        """Begin each job that nothing blocks, and take away those that are over; the units of these."""
        units = self._units()
        over: list[UnitRunner] = []
        progress = True
        while progress:
            progress = False
            for name, job in list(self._jobs.items()):
                runner = self._runners.get(name)
                if runner is None:
                    self._drop(name)
                elif name in self._begun:
                    if _is_over(job, runner):
                        self._drop(name)
                        over.append(runner)
                        progress = True
                elif not jobs.blockers(units, job, self._related(name, units)):
                    self._begin(job, runner)
                    progress = True
        return over

    def _units(self) -> Mapping[str, Unit]:
        return {name: runner.unit for name, runner in self._runners.items()}

    def _related(self, name: str, units: Mapping[str, Unit]) -> list[Job]:
        if self._order is None:
            self._order = jobs.related(units)
        return [self._jobs[other] for other in self._order.get(name, ()) if other in self._jobs]

    def _begin(self, job: Job, runner: UnitRunner) -> None:
        if job.verb == "start":
            for needed in jobs.needs(runner.unit):
                other = self._runners.get(needed)
                if other is not None and needed not in self._jobs and other.state.at_rest:
                    runner.refusal = f"{needed}, which it requires, did not start: {other.status().why}"
                    self._drop(job.unit)
                    self._mark(job.unit)
                    return
        self._begun.add(job.unit)
        if job.verb == "start":
            runner.feed(life.Start(boot_seconds()))
        elif not runner.state.at_rest:
            runner.feed(life.Stop(boot_seconds()), runner.refusal)

    def _drop(self, unit: str) -> None:
        del self._jobs[unit]
        self._begun.discard(unit)

    def ended(self, name: str) -> None:
        """A unit is at rest, however that came: what is bound to it (BindsTo=) stops, and if it failed what it names in
        OnFailure= starts, once for each failure."""
        for bound in jobs.followers(self._units(), name, explicit=False):
            runner = self._runners.get(bound)
            if runner is not None and not runner.state.at_rest and not self.has(bound):
                self.wish(bound, "stop")
                runner.refusal = f"It is bound to {name} (BindsTo=), which stopped."
        failed = self._runners.get(name)
        if failed is None or failed.state.active != "failed" or failed.failure_told == failed.record.since:
            return
        failed.failure_told = failed.record.since
        for helper in failed.unit.unit.on_failure:
            runner = self._runners.get(helper)
            if runner is not None and runner.state.at_rest and not runner.leaving:
                self.wish(helper, "start")


def _is_over(job: Job, runner: UnitRunner) -> bool:
    if runner.busy:
        return False
    state = runner.state
    if job.verb == "stop":
        return state.at_rest
    return state.active == "active" or state.at_rest or state.sub == "auto-restart"
