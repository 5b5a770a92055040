"""Plan: from what changed to decisions, touching only what the change concerns. Pure: time comes in as a number.

Each decision is at once assumed in the snapshot, so that the next one counts with it; if a commit fails, the term
ends and the next one starts from the store.
"""

from __future__ import annotations

from dataclasses import replace

from agent.interfaces import DesiredState
from fleetd.engine.brake import Brake
from fleetd.engine.decisions import Alarm, Answer, Decision, Explain, Group, Place, Unplace
from fleetd.engine.snapshot import Snapshot
from fleetd.registry.records import Placed, Wish
from fleetd.scheduler.choose import Refused, Request, choose, everywhere, suits


class Planner:
    """Turns what the snapshot says was touched into groups of decisions."""

    def __init__(self, snapshot: Snapshot, brake: Brake) -> None:
        self.snapshot = snapshot
        self.brake = brake
        self._lost: dict[str, float] = {}
        self._waiting: dict[str, None] = {}
        self._globals: dict[str, None] = {}
        self._followers: dict[str, set[str]] = {}
        self._leaving: dict[str, str] = {}
        self._due_next: float | None = None

    @property
    def due_next(self) -> float | None:
        """When to plan again though nothing changes; None when there is no such time."""
        return self._due_next

    def plan(self, now: float) -> list[Group]:
        """Decide what the touched units, lost machines and returning machines need."""
        groups: list[Group] = []
        queue: dict[str, None] = {}
        self._machines(now, queue)
        if self.brake.release(now) or (self.snapshot.alarm and not self.brake.alarm):
            groups.append((Alarm(""),))
            self.snapshot.alarm = False
        if self.brake.alarm and not self.snapshot.alarm:
            groups.append((Alarm(self.brake.alarm),))
            self.snapshot.alarm = True
        for machine in [m for m, question in self.snapshot.returns.items() if question.asking is not None]:
            if (group := self._answer(machine)) is not None:
                groups.append(group)
        self._overdue(now, queue)
        while True:
            touched = self.snapshot.take()
            queue |= touched.units
            if touched.room:
                queue |= self._waiting | self._globals
            if not queue:
                return groups
            for unit in list(queue):
                groups.extend(self._decide(unit, now))
            queue = {}

    def _machines(self, now: float, queue: dict[str, None]) -> None:
        touched = self.snapshot.take()
        queue |= touched.units
        if touched.room:
            queue |= self._waiting | self._globals
        for machine in touched.back:
            self._lost.pop(machine, None)
            self.brake.back(machine)
            queue |= dict.fromkeys(self.snapshot.by_machine.get(machine, ()))
        for machine in touched.lost:
            if machine in self.snapshot.present:
                continue
            self._lost[machine] = now
            holders = self.snapshot.holders + (0 if self.snapshot.by_machine.get(machine) else 1)
            self.brake.lost(machine, now, holders)

    def _due(self, unit: str, machine: str) -> float:
        """When a lost machine's unit may move. The machine may run the file that it was given, or already the newest:
        the more patient one counts. A unit that nobody wants any more is let go at once, but not while it may still run
        there though it must not run twice: it may be wanted again."""
        wish = self.snapshot.wishes.get(unit)
        placed = self.snapshot.placements.get(unit, {}).get(machine)
        files = {known.file for known in (wish, placed) if known is not None}
        specs = [self.snapshot.spec(Wish(unit, file, "loaded")) for file in files]
        unwanted = wish is None or wish.desired == "inactive"
        if unwanted:
            specs = [spec for spec in specs if spec.fleet.stop_when_isolated is not None]
        patience = max((spec.patience for spec in specs), default=0.0)
        return max(self._lost.get(machine, 0.0) + patience, 0.0 if unwanted else self.brake.hold_until)

    def _overdue(self, now: float, queue: dict[str, None]) -> None:
        """Find the units whose lost machine was waited for long enough, and the next time that is so."""
        later: list[float] = [self.brake.hold_until] if self.brake.hold_until > now else []
        for machine in list(self._lost):
            units = self.snapshot.by_machine.get(machine)
            if not units:
                if now >= self.brake.hold_until:
                    del self._lost[machine]
                continue
            for unit in units:
                due = self._due(unit, machine)
                if due <= now:
                    queue[unit] = None
                else:
                    later.append(due)
        self._due_next = min(later, default=None)

    def _holds(self, unit: str, machine: str, now: float) -> bool:
        """Whether a placement still counts: its machine lives, or is still waited for."""
        if machine in self.snapshot.present:
            return self._leaving.get(unit) != machine
        return self._due(unit, machine) > now

    def _suits(self, request: Request, machine: str) -> bool:
        """Whether a placement is as its file, which may be new, and the machine's metadata, which may have changed, ask
        for. A lost machine is no better known than it was."""
        return machine not in self.snapshot.present or suits(request, self.snapshot.indices, machine)

    def _decide(self, unit: str, now: float) -> list[Group]:
        wish = self.snapshot.wishes.get(unit)
        where = list(self.snapshot.placements.get(unit, ()))
        if wish is None or wish.desired == "inactive":
            self._globals.pop(unit, None)
            if where:
                self._touch_followers(unit)
            return self._group([*self._let_go(unit, where, now), *self._explain(unit, "")])
        spec = self.snapshot.spec(wish)
        if spec.error:
            return self._group(self._explain(unit, spec.error))
        if spec.fleet.global_:
            return self._decide_global(wish, now)
        self._globals.pop(unit, None)
        request = self._request(wish)
        keep = next((m for m in where if self._holds(unit, m, now) and self._suits(request, m)), None)
        gone = [self._unplace(unit, m) for m in where if m != keep]
        if keep is not None:
            # A lost machine can't see a new file; what it has been given says how long it is waited for.
            changed = self._place(wish, keep) if keep in self.snapshot.present else []
            return self._group([*gone, *changed, *self._explain(unit, "")])
        chosen = choose(request, self.snapshot.indices)
        self._leaving.pop(unit, None)
        if gone or not isinstance(chosen, Refused):
            self._touch_followers(unit)
        if isinstance(chosen, Refused):
            return self._group([*gone, *self._explain(unit, chosen.reason)])
        placed = self._place(wish, chosen)
        self._evict(wish, chosen)
        return self._group([*gone, *placed, *self._explain(unit, "")])

    def _let_go(self, unit: str, where: list[str], now: float) -> list[Decision]:
        """Take an unwanted unit from its machines. A lost one that is waited for keeps it, but is not to start it."""
        decisions: list[Decision] = []
        for machine in where:
            if machine in self.snapshot.present or not self._holds(unit, machine, now):
                decisions.append(self._unplace(unit, machine))
            else:
                file = self.snapshot.placements[unit][machine].file
                decisions += self._place(Wish(unit, file, "loaded"), machine)
        return decisions

    def _decide_global(self, wish: Wish, now: float) -> list[Group]:
        unit = wish.name
        self._globals[unit] = None
        wanted = everywhere(self._request(wish), self.snapshot.indices)
        where = list(self.snapshot.placements.get(unit, ()))
        there = set(wanted)
        groups: list[Group] = []
        for machine in where:
            if machine in self.snapshot.present and machine not in there:
                groups.append((self._unplace(unit, machine),))
            elif machine not in there and not self._holds(unit, machine, now):
                room = self.snapshot.touched.room
                groups.append((self._unplace(unit, machine),))
                self.snapshot.touched.room = room
        self._leaving.pop(unit, None)
        for machine in wanted:
            groups.extend(self._group(self._place(wish, machine)))
        if groups:
            self._touch_followers(unit)
        if wanted:
            return [*groups, *self._group(self._explain(unit, ""))]
        reason = "No machine satisfies what this Global unit asks for."
        return [*groups, *self._group(self._explain(unit, reason))]

    def _request(self, wish: Wish) -> Request:
        fleet = self.snapshot.spec(wish).fleet
        peers: dict[str, set[str]] = {}
        for peer in fleet.machine_of:
            peers[peer] = {m for m in self.snapshot.placements.get(peer, ()) if m in self.snapshot.present}
            self._followers.setdefault(peer, set()).add(wish.name)
        return Request(wish.name, fleet, peers, avoid=self._leaving.get(wish.name, ""))

    def _touch_followers(self, unit: str) -> None:
        """A unit has come, moved or gone: those that name it in MachineOf= are to be looked at."""
        for follower in self._followers.pop(unit, ()):
            self.snapshot.touched.units[follower] = None

    def _evict(self, wish: Wish, machine: str) -> None:
        """Make the units leave that this one Replaces."""
        fleet = self.snapshot.spec(wish).fleet
        if not fleet.replaces:
            return
        for other in self.snapshot.by_machine.get(machine, set()) - {wish.name}:
            if fleet.replaces_unit(other):
                self._leaving[other] = machine
                self.snapshot.touched.units[other] = None

    def _answer(self, machine: str) -> Group | None:
        """Answer a returning machine: what it still runs it keeps, unless a replacement runs already or the
        machine is no longer what the unit asks for."""
        question = self.snapshot.returns[machine]
        presence = self.snapshot.present.get(machine)
        if presence is None or presence.lease != question.lease or question.asking is None:
            return None
        decisions: list[Decision] = []
        for unit in question.asking:
            wish = self.snapshot.wishes.get(unit)
            if wish is None or wish.desired == "inactive" or self.snapshot.spec(wish).fleet.global_:
                continue
            if not self._suits(self._request(wish), machine):
                continue
            others = [m for m in self.snapshot.placements.get(unit, ()) if m != machine]
            if any(unit in self.snapshot.running.get(m, ()) for m in others):
                continue
            decisions += [self._unplace(unit, other) for other in others]
            decisions += [*self._place(wish, machine), *self._explain(unit, "")]
        answer = replace(question, asking=None)
        self.snapshot.returns[machine] = answer
        return (*decisions, Answer(answer))

    # Decisions, assumed at once

    def _place(self, wish: Wish, machine: str) -> list[Decision]:
        desired: DesiredState = "launched" if wish.desired == "launched" else "loaded"
        placed = Placed(wish.name, machine, wish.file, desired)
        before = self.snapshot.placements.get(wish.name, {}).get(machine)
        if before is not None and (before.file, before.desired) == (placed.file, placed.desired):
            return []
        self.snapshot.place(placed)
        return [Place(placed)]

    def _unplace(self, unit: str, machine: str) -> Decision:
        self.snapshot.unplace(unit, machine)
        return Unplace(unit, machine, lost=machine not in self.snapshot.present)

    def _explain(self, unit: str, reason: str) -> list[Decision]:
        if reason:
            self._waiting[unit] = None
        else:
            self._waiting.pop(unit, None)
        if self.snapshot.reasons.get(unit, "") == reason:
            return []
        if reason:
            self.snapshot.reasons[unit] = reason
        else:
            del self.snapshot.reasons[unit]
        return [Explain(unit, reason)]

    @staticmethod
    def _group(decisions: list[Decision]) -> list[Group]:
        return [tuple(decisions)] if decisions else []
