"""Sentences for the person who asks why a unit does not run. Pure."""

from __future__ import annotations

import signal as signals

from agent.units import life
from agent.units.model import Phase, Unit

_NAMES: dict[Phase, str] = {
    "condition": "ExecCondition",
    "start-pre": "ExecStartPre",
    "start": "ExecStart",
    "start-post": "ExecStartPost",
    "reload": "ExecReload",
    "stop": "ExecStop",
    "stop-post": "ExecStopPost",
}


def _signal_name(number: int) -> str:
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"


def ending(unit: Unit, state: life.State, event: life.Event) -> str:
    """What an event says about a failure, or an empty string. `state` is the one before it."""
    service = unit.service
    if service is None:
        return ""
    if isinstance(event, life.TimerFired):
        if state.deadline is None or event.at < state.deadline or state.sub in ("auto-restart", "reload"):
            return ""
        if state.sub in ("condition", "start-pre", "start", "start-post"):
            return f"It did not start within {service.timeout_start:g} s (TimeoutStartSec=, in the state {state.sub})."
        if state.sub == "running":
            return f"It ran for longer than RuntimeMaxSec={service.runtime_max:g}."
        return f"It did not stop within {service.timeout_stop:g} s (TimeoutStopSec=, in the state {state.sub})."
    if not isinstance(event, life.Exited):
        return ""
    if event.slot == state.main:
        who = "The main process"
        fine = service.is_success(event.code, event.signal)
    elif event.slot == state.control:
        phase = next((name for name in _NAMES if name == state.sub), None)
        if phase is None:
            return ""
        commands = service.commands(phase)
        command = commands[state.index]
        who = f"{_NAMES[phase]}={command.path}"
        fine = event.code == 0 or command.ignore_failure
    else:
        return ""
    if event.lost:
        return f"{who}: its monitor is gone, so it was killed."
    if fine:
        return ""
    if event.code is not None:
        return f"{who} ended with code {event.code}."
    return f"{who} was ended by {_signal_name(event.signal or 0)}."


def why(unit: Unit, state: life.State, reason: str, now: float) -> str:
    """Why the unit does not run, in a sentence or two; empty when it does, or when nobody wants it to."""
    if state.sub == "auto-restart":
        left = max(0.0, (state.deadline or now) - now)
        return f"{reason or 'It ended.'} It is started again in {left:.1f} s (Restart={_restart(unit)})."
    if state.result == "start-limit-hit":
        section = unit.unit
        limit = f"{section.start_limit_burst} times in {section.start_limit_interval:g} s"
        return f"It was started {limit} and is not tried again (StartLimitBurst=). {reason}".strip()
    if state.result == "exec-condition":
        return "ExecCondition= says that it need not run."
    if state.result == "protocol":
        return reason or "It ended, or forked away, without saying that it was ready."
    if state.active == "active":
        return ""
    return reason


def _restart(unit: Unit) -> str:
    return unit.service.restart if unit.service is not None else "no"
