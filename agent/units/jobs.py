"""Dependencies between the units of one machine: which jobs a wish brings along, and in what order. Pure.

Source: systemd.unit(5). Placement is the scheduler's affair: a dependency that is not on this machine is `not-found`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from agent.units.builtin import is_builtin
from agent.units.errors import UnitError
from agent.units.model import Unit

Verb = Literal["start", "stop"]


class DependencyError(UnitError):
    """A unit can't start for want of another."""


@dataclass(frozen=True)
class Job:
    """A unit that is to be started or stopped."""

    unit: str
    verb: Verb


def needs(unit: Unit) -> tuple[str, ...]:
    """Units without which this one does not start."""
    return tuple(dict.fromkeys((*unit.unit.requires, *unit.unit.binds_to, *unit.unit.requisite)))


def transaction(units: Mapping[str, Unit], name: str, verb: Verb, active: Collection[str]) -> tuple[Job, ...]:
    """All jobs of a wish, the wish's own among them, in an order that obeys After= and Before=.

    `active` names the units that run. DependencyError says which needed unit is not here, or what contradicts itself.
    """
    jobs: dict[str, Job] = {}
    if verb == "start":
        _add_start(units, name, active, jobs)
    else:
        for stopped in (name, *followers(units, name, explicit=True)):
            if stopped == name or stopped in active:
                jobs[stopped] = Job(stopped, "stop")
    return _ordered(units, jobs)


def _add_start(units: Mapping[str, Unit], name: str, active: Collection[str], jobs: dict[str, Job]) -> None:
    if name in jobs:
        if jobs[name].verb == "stop":
            raise DependencyError(f"{name} would have to be started and stopped at once.")
        return
    unit = units[name]
    jobs[name] = Job(name, "start")
    for needed in needs(unit):
        if is_builtin(needed) or needed in active:
            continue
        if needed not in units:
            raise DependencyError(f"{name} requires {needed}, which is not on this machine.")
        if needed in unit.unit.requisite:
            raise DependencyError(f"{name} wants {needed} to be active already, and it is not.")
        _add_start(units, needed, active, jobs)
    for wanted in unit.unit.wants:
        if wanted in units and wanted not in active and jobs.get(wanted, Job(wanted, "start")).verb == "start":
            _add_start(units, wanted, active, jobs)
    rivals = {other for other in unit.unit.conflicts if other in units}
    rivals |= {other for other, body in units.items() if name in body.unit.conflicts}
    for rival in sorted(rivals - {name}):
        if rival in jobs and jobs[rival].verb == "start":
            raise DependencyError(f"{name} and {rival} conflict, and would have to run together.")
        if rival in active:
            jobs[rival] = Job(rival, "stop")


def followers(units: Mapping[str, Unit], name: str, *, explicit: bool) -> tuple[str, ...]:
    """Units that stop when this one does: those bound to it always, its dependents and parts only by wish."""
    found: dict[str, None] = {}
    queue = [name]
    while queue:
        current = queue.pop()
        for other, body in units.items():
            section = body.unit
            bound = current in section.binds_to
            if explicit:
                bound = (
                    bound or current in section.requires or current in section.requisite or current in section.part_of
                )
            if bound and other != name and other not in found:
                found[other] = None
                queue.append(other)
    return tuple(found)


def _earlier(units: Mapping[str, Unit], first: str, second: str) -> bool:
    """Whether `first` starts before `second`."""
    after = first in units and second in units[first].unit.before
    return after or (second in units and first in units[second].unit.after)


def blockers(units: Mapping[str, Unit], job: Job, pending: Iterable[Job]) -> frozenset[str]:
    """Units whose job must be over before this one begins. Stops run in the opposite order, and before starts."""
    found = set()
    for other in pending:
        if other.unit == job.unit:
            continue
        before, after = _earlier(units, other.unit, job.unit), _earlier(units, job.unit, other.unit)
        if other.verb == "stop" and job.verb == "start":
            rivals = job.unit in units and other.unit in units[job.unit].unit.conflicts
            rivals = rivals or (other.unit in units and job.unit in units[other.unit].unit.conflicts)
            blocks = before or after or rivals
        elif job.verb == "stop":
            blocks = other.verb == "stop" and after
        else:
            blocks = before
        if blocks:
            found.add(other.unit)
    return frozenset(found)


def related(units: Mapping[str, Unit]) -> dict[str, frozenset[str]]:
    """For each unit the others that After=, Before= or Conflicts= tie to it: only their jobs can block its own."""
    ties: dict[str, set[str]] = {}
    for name, body in units.items():
        for other in (*body.unit.after, *body.unit.before, *body.unit.conflicts):
            if other in units and other != name:
                ties.setdefault(name, set()).add(other)
                ties.setdefault(other, set()).add(name)
    return {name: frozenset(others) for name, others in ties.items()}


def _ordered(units: Mapping[str, Unit], jobs: Mapping[str, Job]) -> tuple[Job, ...]:
    """Sort by :func:`blockers`. A circle of After= is an error, as it would wait for ever."""
    waiting = dict(jobs)
    out: list[Job] = []
    while waiting:
        free = [job for job in waiting.values() if not blockers(units, job, waiting.values())]
        if not free:
            raise DependencyError(
                f"The order of {', '.join(sorted(waiting))} goes round in a circle (After=, Before=)."
            )
        for job in free:
            out.append(job)
            del waiting[job.unit]
    return tuple(out)
