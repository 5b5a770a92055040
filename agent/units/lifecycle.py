"""The life of a service: a pure function from a state and an event to the next state and what is to be done.

The transitions are systemd's (systemd.service(5), and the states that `systemctl` shows). No clock, process or disk.
"""

from __future__ import annotations

import math
from dataclasses import replace
from signal import SIGCONT, SIGHUP, SIGKILL
from typing import Any

from agent.units.command import Command
from agent.units.life import (
    Action,
    Emptied,
    Event,
    Exited,
    Kill,
    MainFound,
    Notified,
    Paused,
    Reload,
    Result,
    Resumed,
    Role,
    Run,
    Start,
    Started,
    State,
    Stop,
    Sub,
    TimerFired,
)
from agent.units.model import Phase, Service, Unit

STARTING: frozenset[Sub] = frozenset({"condition", "start-pre", "start", "start-post"})
KILLING: frozenset[Sub] = frozenset({"stop-sigterm", "stop-sigkill", "final-sigterm", "final-sigkill"})
SIGNAL_BASE = 128
"""A container's code above this says which signal ended it."""


def resume(unit: Unit, state: State) -> tuple[Action, ...]:
    """What a supervisor that was away has to do again: its last signals may never have been sent."""
    if state.sub not in KILLING or unit.service is None:
        return ()
    again = _Turn(unit, unit.service, state, 0.0)
    again.kill()
    return tuple(again.actions)


def step(unit: Unit, state: State, event: Event) -> tuple[State, tuple[Action, ...]]:
    """Answer the state after an event, and the actions to take, in order. The state is to be saved before they are."""
    assert unit.service is not None, f"{unit.name} is not a service"
    turn = _Turn(unit, unit.service, state, event.at)
    turn.take(event)
    assert turn.state.main is None or turn.state.main < turn.state.next_slot
    return turn.state, tuple(turn.actions)


class _Turn:
    """One step while it is being worked out."""

    def __init__(self, unit: Unit, service: Service, state: State, at: float) -> None:
        self.unit = unit
        self.service = service
        self.state = state
        self.at = at
        self.actions: list[Action] = []

    def take(self, event: Event) -> None:
        match event:
            case Start():
                self._asked_to_start()
            case Stop():
                self._asked_to_stop()
            case Reload():
                if self.state.sub == "running" and self.service.reload:
                    self._run_phase("reload", 0)
            case Started(slot, pid):
                self._started(slot, pid)
            case Exited():
                self._exited(event)
            case MainFound(slot, pid) if slot == self.state.main:
                self._set(main_pid=pid)
            case MainFound(slot, pid) if slot == self.state.forked:
                self._set(main=slot, main_pid=pid, forked=None)
                if self.state.sub == "start":
                    self._run_phase("start-post", 0)
            case Notified():
                self._notified(event)
            case TimerFired():
                if self.state.deadline is not None and self.at >= self.state.deadline:
                    self._timed_out()
            case Emptied():
                if self.state.sub in KILLING and self.state.main is None and self.state.control is None:
                    self._after_kill()
            case Paused(slot):
                if slot in (self.state.main, self.state.control) and self.state.deadline is not None:
                    self._set(paused=max(0.0, self.state.deadline - self.at), deadline=None)
            case Resumed(slot):
                if slot in (self.state.main, self.state.control) and self.state.paused is not None:
                    self._set(deadline=self.at + self.state.paused, paused=None)

    def _set(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)

    def _go(self, sub: Sub, timeout: float = math.inf) -> None:
        deadline = None if timeout == math.inf else self.at + timeout
        self._set(sub=sub, deadline=deadline, paused=None)

    def _fail(self, result: Result) -> None:
        """Remember why it went wrong; the first reason stays."""
        if self.state.result == "success":
            self._set(result=result)

    # Starting

    def _asked_to_start(self) -> None:
        if self.state.sub in ("dead", "failed", "auto-restart"):
            self._start(restarts=0)
        elif self.state.active == "deactivating":
            self._set(start_after_stop=True)

    def _start(self, restarts: int) -> None:
        section = self.unit.unit
        recent = tuple(at for at in self.state.starts if self.at - at < section.start_limit_interval)
        limited = section.start_limit_burst > 0 and section.start_limit_interval > 0
        if limited and len(recent) >= section.start_limit_burst:
            self._set(result="start-limit-hit", starts=recent, start_after_stop=False)
            self._go("failed")
            return
        bound = section.start_limit_burst if limited else 0
        self._set(
            result="success",
            starts=(*recent, self.at)[-bound:] if bound else (),
            restarts=restarts,
            main=None,
            main_pid=None,
            control=None,
            forked=None,
            main_code=None,
            main_signal=None,
            forbid_restart=False,
            start_after_stop=False,
            status="",
        )
        self._run_phase("condition", 0)

    def _run_phase(self, phase: Phase, index: int) -> None:
        """Run a phase from one of its commands on; one with none left is passed."""
        commands = self.service.commands(phase)
        if index >= len(commands):
            self._after_phase(phase)
            return
        stopping = phase in ("stop", "stop-post")
        self._go(phase, self.service.timeout_stop if stopping else self.service.timeout_start)
        main = phase == "start" and self.service.type != "forking"
        self._run("main" if main else "control", phase, index)
        if main and self.service.type == "simple":
            self._run_phase("start-post", 0)

    def _run(self, role: Role, phase: Phase, index: int) -> None:
        slot = self.state.next_slot
        self.actions.append(Run(slot, role, phase, index))
        self._set(next_slot=slot + 1, index=index)
        if role == "main":
            self._set(main=slot, main_pid=None)
        else:
            self._set(control=slot)

    def _after_phase(self, phase: Phase) -> None:
        match phase:
            case "condition":
                self._run_phase("start-pre", 0)
            case "start-pre":
                self._run_phase("start", 0)
            case "start":
                self._run_phase("start-post", 0)
            case "start-post" | "reload":
                self._settle()
            case "stop":
                self._signal("stop-sigterm")
            case "stop-post":
                self._signal("final-sigterm")

    def _settle(self) -> None:
        """Started, or reloaded: what now?"""
        if self.state.result != "success":
            self._signal("stop-sigterm")
        elif self.state.main is not None:
            self._go("running", self.service.runtime_max)
        elif self.service.remain_after_exit:
            self._go("exited")
        else:
            self._run_phase("stop", 0)

    def _started(self, slot: int, pid: int) -> None:
        if slot != self.state.main:
            return
        self._set(main_pid=pid)
        if self.state.sub == "start" and self.service.type == "exec":
            self._run_phase("start-post", 0)

    def _notified(self, event: Notified) -> None:
        if event.status is not None:
            self._set(status=event.status)
        if event.main_pid is not None and event.slot == self.state.main:
            self._set(main_pid=event.main_pid)
        if event.ready and self.state.sub == "start" and self.service.type == "notify":
            self._run_phase("start-post", 0)
        elif event.stopping and self.state.sub == "running":
            self._go("stop-sigterm", self.service.timeout_stop)

    # Exits

    def _exited(self, event: Exited) -> None:
        if event.slot == self.state.control:
            self._set(control=None)
            self._control_exited(event)
        elif event.slot == self.state.main:
            self._main_exited(event)
        elif event.slot == self.state.forked:
            self._set(forked=None)
            if self.state.sub == "start":
                self._fail("protocol")
                self._signal("stop-sigterm")

    def _judge(self, event: Exited, command: Command | None, *, main: bool) -> Result:
        if event.unable:
            return "resources"
        if event.lost:
            return "monitor-lost"
        if command is not None and command.ignore_failure:
            return "success"
        if main and self.service.is_success(event.code, event.signal):
            return "success"
        if main and self.state.forbid_restart and event.code == SIGNAL_BASE + self.service.kill_signal:
            return "success"
        if event.code is not None:
            return "success" if event.code == 0 else "exit-code"
        return "signal"

    def _main_exited(self, event: Exited) -> None:
        command = self.service.start[self.state.index] if self.state.sub == "start" else None
        if command is None and self.service.start:
            command = self.service.start[-1]
        result = self._judge(event, command, main=True)
        self._set(main=None, main_pid=None, main_code=event.code, main_signal=event.signal)
        if result != "success":
            self._fail(result)
        match self.state.sub:
            case "start" if self.service.type == "oneshot" and result == "success":
                self._run_phase("start", self.state.index + 1)
            case "start":
                self._fail("protocol" if self.service.type == "notify" and result == "success" else result)
                if self.state.result == "success":
                    self._run_phase("start-post", 0)
                else:
                    self._signal("stop-sigterm")
            case "running":
                self._settle()
            case "stop-sigterm" | "stop-sigkill" if self.state.control is None:
                self._run_phase("stop-post", 0)
            case _:
                pass

    def _control_exited(self, event: Exited) -> None:
        phase = self._phase()
        if phase is None:
            if self.state.sub in ("stop-sigterm", "stop-sigkill") and self.state.main is None:
                self._run_phase("stop-post", 0)
            return
        command = self.service.commands(phase)[self.state.index]
        result = self._judge(event, command, main=False)
        if phase == "condition" and result == "exit-code" and event.code != 255:
            self._fail("exec-condition")
            self._signal("stop-sigterm")
        elif phase == "reload":
            self._run_phase("reload", self.state.index + 1 if result == "success" else len(self.service.reload))
        elif result != "success":
            self._fail(result)
            self._signal("final-sigterm" if phase == "stop-post" else "stop-sigterm")
        elif phase == "start":
            self._set(forked=event.slot)
        else:
            self._run_phase(phase, self.state.index + 1)

    def _phase(self) -> Phase | None:
        match self.state.sub:
            case "condition" | "start-pre" | "start" | "start-post" | "reload" | "stop" | "stop-post":
                return self.state.sub
        return None

    # Stopping

    def _asked_to_stop(self) -> None:
        self._set(forbid_restart=True, start_after_stop=False)
        if self.state.sub == "auto-restart":
            self._rest()
        elif self.state.sub in STARTING or self.state.sub == "reload":
            self._signal("stop-sigterm")
        elif self.state.sub in ("running", "exited"):
            self._run_phase("stop", 0)

    def _signal(self, sub: Sub) -> None:
        """Enter a killing state: signal whom KillMode= names, and wait for their end or the deadline."""
        self._go(sub, self.service.timeout_stop)
        if not self.kill():
            self._after_kill()

    def kill(self) -> bool:
        """Send the signals of the killing state; False when there is nobody whose end is to be waited for."""
        sub, mode = self.state.sub, self.service.kill_mode
        hard = sub in ("stop-sigkill", "final-sigkill") or (mode == "mixed" and sub == "final-sigterm")
        number = self.service.final_kill_signal if hard else self.service.kill_signal
        group = mode == "control-group" or (mode == "mixed" and hard)
        alone = self.state.main is None and self.state.control is None
        if mode == "none" or (alone and not group):
            return False
        self.actions.append(Kill(number, group))
        if number not in (int(SIGCONT), int(SIGKILL)):
            self.actions.append(Kill(int(SIGCONT), group))
            if self.service.send_sighup:
                self.actions.append(Kill(int(SIGHUP), group))
        return True

    def _after_kill(self) -> None:
        if self.state.sub in ("stop-sigterm", "stop-sigkill"):
            self._run_phase("stop-post", 0)
        else:
            self._rest()

    def _timed_out(self) -> None:
        match self.state.sub:
            case "auto-restart":
                self._start(self.state.restarts + 1)
            case "condition" | "start-pre" | "start" | "start-post" | "running" | "stop":
                self._fail("timeout")
                self._signal("stop-sigterm")
            case "reload":
                self._set(control=None)
                self._settle()
            case "stop-sigterm":
                self._fail("timeout")
                if self.service.send_sigkill:
                    self._signal("stop-sigkill")
                else:
                    self._run_phase("stop-post", 0)
            case "stop-sigkill":
                self._fail("timeout")
                self._run_phase("stop-post", 0)
            case "stop-post":
                self._fail("timeout")
                self._signal("final-sigterm")
            case "final-sigterm" if self.service.send_sigkill:
                self._fail("timeout")
                self._signal("final-sigkill")
            case "final-sigterm" | "final-sigkill":
                self._fail("timeout")
                self._rest()
            case _:
                self._set(deadline=None)

    def _rest(self) -> None:
        """The end: dead, failed, or a restart to come."""
        self._set(main=None, main_pid=None, control=None, forked=None)
        if self.state.start_after_stop:
            self._start(restarts=0)
        elif self._shall_restart():
            self._go("auto-restart", self.service.restart_sec)
        else:
            self._go("dead" if self.state.result in ("success", "exec-condition") else "failed")

    def _shall_restart(self) -> bool:
        state, service = self.state, self.service
        if state.forbid_restart or state.result == "exec-condition":
            return False
        if state.main_code in service.prevent_codes or state.main_signal in service.prevent_signals:
            return False
        if state.main_code in service.force_codes or state.main_signal in service.force_signals:
            return True
        match service.restart:
            case "always":
                return True
            case "on-success":
                return state.result == "success"
            case "on-failure":
                return state.result != "success"
            case "on-abnormal":
                return state.result not in ("success", "exit-code")
            case "on-abort":
                return state.result in ("signal", "monitor-lost")
            case "on-watchdog":
                return state.result == "watchdog"
        return False
