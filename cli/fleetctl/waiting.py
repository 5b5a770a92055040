"""Wait until units are as they were asked for, over one stream of events, and say why one is not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from queue import Empty, Queue
from typing import Any, Literal

from fleetd.api.client import ApiClient, ClientError

Goal = Literal["inactive", "loaded", "launched"]
ATTEMPT_S = 0.5
"""What one of --block-attempts lasts, as in fleet."""
UNPLACED_PATIENCE_S = 3.0
"""How long a unit that no machine will take is waited for: another unit or machine may be on its way."""
TROUBLE_SETTLES_S = 0.3
"""How long a failure must last to be told: one of before may still be reported when a new start is on its way."""
UNBORN_PATIENCE_S = 2.0
"""How long a unit that counts as active is waited for while it has no main process yet: its container is being made, or
can't be. Some units never have one."""
STOPPED = frozenset({"inactive", "failed"})


@dataclass
class Watched:
    """What the stream has told of one unit."""

    name: str
    placed: dict[str, int] = field(default_factory=dict)
    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    desired: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Machine -> what is wanted there, and the placement's revision: a state of an older epoch says nothing of it."""
    reason: str = ""
    exists: bool = False
    restarting: bool = False
    """The trouble is one that the next attempt to start would hide."""

    def _current(self, machine: str) -> dict[str, Any] | None:
        state = self.states.get(machine)
        return state if state is not None and state["epoch"] >= self.desired[machine][1] else None

    def take(self, event: dict[str, Any]) -> None:
        """Take in an event of this unit."""
        machine = event.get("machine", "")
        match event["kind"], event["gone"]:
            case "units", gone:
                self.exists = not gone
            case "placements", True:
                self.desired.pop(machine, None)
            case "placements", False:
                self.desired[machine] = (event["desired"], event["revision"])
            case "states", True:
                self.states.pop(machine, None)
            case "states", False:
                self.states[machine] = event
            case "reasons", gone:
                self.reason = "" if gone else event["reason"]

    def reached(self, goal: Goal) -> str | None:
        """The machine on which the goal is reached; '' when it needs none, None when it is not reached."""
        if goal == "inactive":
            return (
                "" if not self.desired and not any(s["active"] not in STOPPED for s in self.states.values()) else None
            )
        for machine, (desired, _) in self.desired.items():
            state = self._current(machine)
            if state is None or desired != goal:
                continue
            if goal == "launched" and state["active"] == "active":
                return machine
            if goal == "loaded" and state["active"] in STOPPED:
                return machine
        return None

    def unborn(self) -> bool:
        """Whether the unit counts as running where it is placed, but no process of it is known yet."""
        states = [self._current(machine) for machine in self.desired]
        return any(
            state is not None and (state["active"], state["sub"]) == ("active", "running") and not state["main_pid"]
            for state in states
        )

    def ended(self) -> str | None:
        """The machine on which the unit ran and ended well, as a oneshot does."""
        for machine, (desired, _) in self.desired.items():
            state = self._current(machine)
            if state is None or desired != "launched" or state["active"] != "inactive" or state["why"]:
                continue
            if state["exit_status"] is not None and state["result"] == "success":
                return machine
        return None

    def trouble(self) -> str:
        """Why the unit does not run on the machine that it is placed on; '' when nothing is wrong."""
        for machine, (desired, _) in self.desired.items():
            state = self._current(machine)
            if state is None or desired != "launched":
                continue
            self.restarting = state["sub"] == "auto-restart"
            failed = state["active"] == "failed" or self.restarting
            if failed or (state["active"] == "inactive" and state["why"]):
                return f"{self.name} does not run on {machine[:8]}...: {describe(state)}"
        return ""


def describe(state: dict[str, Any]) -> str:
    """A state in words."""
    words = f"{state['active']} ({state['sub']})"
    if state.get("result", "success") != "success":
        words += f", result {state['result']}"
    if state.get("exit_status") is not None:
        words += f", exit status {state['exit_status']}"
    return f"{words}. {state['why']}" if state.get("why") else f"{words}."


def _timed(events: Iterator[dict[str, Any]]) -> Callable[[float | None], dict[str, Any] | None]:
    """Read a stream with a time limit: None when nothing came in time. Errors of the stream are raised here."""
    queue: Queue[dict[str, Any] | Exception] = Queue()

    def pump() -> None:
        try:
            for event in events:
                queue.put(event)
            queue.put(ClientError("fleetd ended the stream."))
        except ClientError as error:
            queue.put(error)

    threading.Thread(target=pump, daemon=True).start()

    def read(timeout: float | None) -> dict[str, Any] | None:
        try:
            event = queue.get(timeout=timeout)
        except Empty:
            return None
        if isinstance(event, Exception):
            raise event
        return event

    return read


def wait_for(
    api: ApiClient,
    units: list[str],
    goal: Goal,
    attempts: int,
    done: Callable[[str, str], None],
    trouble: Callable[[str, str], None],
) -> None:
    """Wait for all units; `done(unit, machine)` and `trouble(unit, why)` are called once a unit. `attempts` halves of
    a second are waited, 0 for ever."""
    watched = {name: Watched(name) for name in units}
    read = _timed(api.events(units))
    started = time.monotonic()
    limit = started + attempts * ATTEMPT_S if attempts else None
    refused: dict[str, float] = {}
    failing: dict[str, float] = {}
    unborn: dict[str, float] = {}
    complete = False
    while watched:
        now = time.monotonic()
        ends = [at + UNPLACED_PATIENCE_S for at in refused.values()] + ([limit] if limit is not None else [])
        ends += [at + TROUBLE_SETTLES_S for at in failing.values()]
        ends += [at + UNBORN_PATIENCE_S for at in unborn.values()]
        event = read(max(0.0, min(ends) - now)) if ends else read(None)
        if event is not None and event["kind"] == "now":
            complete = True
        elif event is not None and event.get("unit") in watched:
            watched[event["unit"]].take(event)
        if not complete:
            continue
        now = time.monotonic()
        for name, unit in list(watched.items()):
            machine = unit.reached(goal)
            why = unit.trouble() if goal == "launched" else ""
            ended = unit.ended() if goal == "launched" else None
            if not why and ended is None:
                failing.pop(name, None)
            elif not unit.restarting and now - failing.setdefault(name, now) < TROUBLE_SETTLES_S:
                continue
            machine = ended if machine is None else machine
            if goal == "launched" and not why and unit.unborn():
                if now - unborn.setdefault(name, now) < UNBORN_PATIENCE_S:
                    continue
            else:
                unborn.pop(name, None)
            if unit.reason and machine is None:
                since = refused.setdefault(name, now)
                if now - since >= UNPLACED_PATIENCE_S:
                    why = f"{name} is not placed: {unit.reason}"
            else:
                refused.pop(name, None)
            if not why and machine is None and limit is not None and now >= limit:
                why = f"{name} is not {goal} after {attempts} attempts; it may be later."
            if machine is None and not why and not unit.exists and goal != "inactive":
                why = f"{name} was destroyed."
            if machine is not None and not why:
                done(name, machine)
            elif why:
                trouble(name, why)
            else:
                continue
            del watched[name]
            for kept in (refused, failing, unborn):
                kept.pop(name, None)
