"""Random lives: whatever happens in whatever order, the rules hold, and a stop brings every unit to rest."""

from __future__ import annotations

import os
import random

import pytest

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
    Resumed,
    Run,
    Start,
    Started,
    State,
    Stop,
    TimerFired,
)
from agent.units.lifecycle import resume, step
from agent.units.model import Unit
from agent.units.spec import parse_unit

LIVES = 400
EVENTS = 60
SEED = int(os.environ.get("FLEET_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)


def any_unit(dice: random.Random) -> Unit:
    kind = dice.choice(["simple", "exec", "oneshot", "forking", "notify"])
    lines = [
        f"Type={kind}",
        "ExecStart=/bin/a",
        f"KillMode={dice.choice(['control-group', 'mixed', 'process', 'none'])}",
    ]
    for key in ("ExecCondition", "ExecStartPre", "ExecStartPost", "ExecReload", "ExecStop", "ExecStopPost"):
        lines += [f"{key}={dice.choice(['', '-'])}/bin/{key}"] * dice.choice([0, 0, 1, 2])
    restarts = ["no", "on-failure", "on-abnormal", "on-abort"] + ([] if kind == "oneshot" else ["always", "on-success"])
    lines.append(f"Restart={dice.choice(restarts)}")
    lines.append(f"RemainAfterExit={dice.choice(['yes', 'no'])}")
    lines.append(f"SendSIGKILL={dice.choice(['yes', 'no'])}")
    return parse_unit("a.service", "[Unit]\nStartLimitBurst=3\n[Service]\n" + "\n".join(lines) + "\n")


class World:
    """What a shell would know: which slots live."""

    def __init__(self) -> None:
        self.live: set[int] = set()
        self.seen: set[int] = set()

    def obey(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            match action:
                case Run(slot):
                    assert slot not in self.seen, "a slot was used twice"
                    self.seen.add(slot)
                    self.live.add(slot)
                case Kill(signal):
                    assert 1 <= signal <= 64


def any_event(dice: random.Random, state: State, world: World, at: float) -> Event:
    slot = dice.choice([*world.live, *world.seen, 99]) if world.seen else 99
    match dice.randrange(11):
        case 0:
            return Start(at)
        case 1:
            return Stop(at)
        case 2:
            return Reload(at)
        case 3:
            return Started(slot, 1000 + slot, at)
        case 4:
            return Notified(slot, at, ready=dice.random() < 0.5, stopping=dice.random() < 0.2)
        case 5 | 6:
            world.live.discard(slot)
            if dice.random() < 0.2:
                return Exited(slot, at, lost=True)
            return (
                Exited(slot, at, code=dice.choice([0, 0, 1, 255]))
                if dice.random() < 0.7
                else Exited(slot, at, signal=9)
            )
        case 7:
            return TimerFired(max(at, state.deadline or at))
        case 8:
            return Emptied(at)
        case 9:
            return MainFound(state.forked, 7, at) if state.forked is not None else Paused(slot, at)
    return Resumed(slot, at)


def check(state: State) -> None:
    if state.at_rest:
        assert state.deadline is None and state.main is None and state.control is None, state
    if state.sub == "auto-restart":
        assert state.deadline is not None and not state.forbid_restart
    if state.sub == "failed":
        assert state.result not in ("success", "exec-condition")
    if state.sub == "dead":
        assert state.result in ("success", "exec-condition")
    if state.sub == "running":
        assert state.main is not None and state.result == "success"


@pytest.mark.parametrize("number", range(8))
def test_random_lives(number: int) -> None:
    dice = random.Random(SEED * 100 + number)
    for _ in range(LIVES // 8):
        unit, state, world, at = any_unit(dice), State(), World(), 0.0
        history: list[Event] = []
        try:
            for _ in range(EVENTS):
                at += dice.random() * 3
                history.append(any_event(dice, state, world, at))
                state, actions = step(unit, state, history[-1])
                world.obey(actions)
                check(state)
                resume(unit, state)
            state = brought_to_rest(unit, state, world, at)
        except AssertionError as error:
            raise AssertionError(f"seed {SEED}, {unit.text}, {history}, {state}: {error}") from error


def brought_to_rest(unit: Unit, state: State, world: World, at: float) -> State:
    """Ask for a stop; let what lives end, and time pass. It must come to rest, and soon."""
    state, actions = step(unit, state, Stop(at))
    world.obey(actions)
    for _ in range(40):
        if state.at_rest:
            return state
        for slot in (state.main, state.control):
            if slot is not None:
                state, actions = step(unit, state, Exited(slot, at, code=0))
                world.obey(actions)
        state, actions = step(unit, state, Emptied(at))
        world.obey(actions)
        if state.deadline is not None:
            at = max(at, state.deadline)
            state, actions = step(unit, state, TimerFired(at))
            world.obey(actions)
        check(state)
    raise AssertionError("it never came to rest")
