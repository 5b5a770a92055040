"""The life of a service as scripts: `>>` an event happens, `<<` what is done, `==` the state then.

>> 0 start                 the event, with the second it happens
<< run main start 0 #1     each action, in order
== start                   ACTIVE/SUB result [deadline]
"""

from __future__ import annotations

import re

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
from agent.units.lifecycle import step
from agent.units.spec import parse_unit


def event(text: str) -> Event:
    words = text.split()
    at, what = float(words[0]), words[1]
    slot = int(words[2].removeprefix("#")) if len(words) > 2 and words[2].startswith("#") else 0
    match what:
        case "start":
            return Start(at)
        case "stop":
            return Stop(at)
        case "reload":
            return Reload(at)
        case "started":
            return Started(slot, 100 + slot, at)
        case "exit":
            return Exited(slot, at, code=int(words[3]))
        case "killed":
            return Exited(slot, at, signal=int(words[3]))
        case "lost":
            return Exited(slot, at, lost=True)
        case "unable":
            return Exited(slot, at, unable=True)
        case "timer":
            return TimerFired(at)
        case "empty":
            return Emptied(at)
        case "found":
            return MainFound(slot, 4000, at)
        case "ready":
            return Notified(slot, at, ready=True)
        case "pause":
            return Paused(slot, at)
        case "resume":
            return Resumed(slot, at)
    raise AssertionError(text)


def shown(action: Action) -> str:
    match action:
        case Run(slot, role, phase, index):
            return f"run {role} {phase} {index} #{slot}"
        case Kill(signal, group):
            return f"kill {signal} {'group' if group else 'processes'}"


def play(file: str, script: str) -> State:
    unit = parse_unit("a.service", file)
    state = State()
    done: list[str] = []
    for line in script.strip().splitlines():
        mark, text = line.split(maxsplit=1)
        if mark == ">>":
            assert not done, f"before '{text}' also: {done}"
            state, actions = step(unit, state, event(text))
            done = [shown(action) for action in actions]
        elif mark == "<<":
            assert done and done[0] == text, f"wanted '{text}', got {done} in {state}"
            done = done[1:]
        else:
            deadline = "" if state.deadline is None else f" @{state.deadline:g}"
            assert f"{state.active}/{state.sub} {state.result}{deadline}" == text
    assert not done, f"at the end also: {done}"
    return state


SIMPLE = "[Service]\nExecStart=/bin/a\n"
FULL = """[Service]
ExecStartPre=/bin/pre
ExecStart=/bin/a
ExecStartPost=/bin/post
ExecStop=/bin/stop
ExecStopPost=/bin/stoppost
RestartSec=2
TimeoutStopSec=7
"""

TABLE = {
    "a simple service runs and ends": (
        SIMPLE,
        """
        >> 0 start
        << run main start 0 #1
        == active/running success
        >> 1 started #1
        >> 2 exit #1 0
        << kill 15 group
        << kill 18 group
        == deactivating/stop-sigterm success @92
        >> 2 empty
        << kill 15 group
        << kill 18 group
        == deactivating/final-sigterm success @92
        >> 2 empty
        == inactive/dead success
        """,
    ),
    "every command of a life, stopped by wish": (
        FULL,
        """
        >> 0 start
        << run control start-pre 0 #1
        == activating/start-pre success @90
        >> 1 exit #1 0
        << run main start 0 #2
        << run control start-post 0 #3
        == activating/start-post success @91
        >> 2 exit #3 0
        == active/running success
        >> 5 stop
        << run control stop 0 #4
        == deactivating/stop success @12
        >> 6 exit #4 0
        << kill 15 group
        << kill 18 group
        == deactivating/stop-sigterm success @13
        >> 7 killed #2 15
        << run control stop-post 0 #5
        >> 8 exit #5 0
        << kill 15 group
        << kill 18 group
        >> 8 empty
        == inactive/dead success
        """,
    ),
    "what does not end is killed": (
        SIMPLE + "TimeoutStopSec=7\n",
        """
        >> 0 start
        << run main start 0 #1
        >> 1 stop
        << kill 15 group
        << kill 18 group
        == deactivating/stop-sigterm success @8
        >> 7.9 timer
        >> 8 timer
        << kill 9 group
        == deactivating/stop-sigkill timeout @15
        >> 8 killed #1 9
        << kill 15 group
        << kill 18 group
        >> 8 empty
        == failed/failed timeout
        """,
    ),
    "exit 7: ExecStopPost and Restart= are obeyed": (
        FULL.replace("ExecStartPre=/bin/pre\n", "").replace("ExecStartPost=/bin/post\n", "") + "Restart=on-failure\n",
        """
        >> 0 start
        << run main start 0 #1
        >> 3 exit #1 7
        << kill 15 group
        << kill 18 group
        == deactivating/stop-sigterm exit-code @10
        >> 3 empty
        << run control stop-post 0 #2
        >> 4 exit #2 0
        << kill 15 group
        << kill 18 group
        >> 4 empty
        == activating/auto-restart exit-code @6
        >> 6 timer
        << run main start 0 #3
        == active/running success
        """,
    ),
    "a failed ExecStartPre": (
        FULL,
        """
        >> 0 start
        << run control start-pre 0 #1
        >> 1 exit #1 3
        << kill 15 group
        << kill 18 group
        >> 1 empty
        << run control stop-post 0 #2
        >> 1 exit #2 0
        << kill 15 group
        << kill 18 group
        >> 1 empty
        == failed/failed exit-code
        """,
    ),
    "a failure that - forgives": (
        "[Service]\nExecStartPre=-/bin/pre\nExecStart=/bin/a\n",
        """
        >> 0 start
        << run control start-pre 0 #1
        >> 1 exit #1 3
        << run main start 0 #2
        == active/running success
        """,
    ),
    "oneshot runs its commands one by one": (
        "[Service]\nType=oneshot\nExecStart=/bin/a\nExecStart=/bin/b\nRemainAfterExit=yes\n",
        """
        >> 0 start
        << run main start 0 #1
        == activating/start success
        >> 1 exit #1 0
        << run main start 1 #2
        >> 2 exit #2 0
        == active/exited success
        >> 3 stop
        << kill 15 group
        << kill 18 group
        >> 3 empty
        << kill 15 group
        << kill 18 group
        >> 3 empty
        == inactive/dead success
        """,
    ),
    "exec waits for the program": (
        "[Service]\nType=exec\nExecStart=/bin/a\nRestart=always\n",
        """
        >> 0 start
        << run main start 0 #1
        == activating/start success @90
        >> 0 unable #1
        << kill 15 group
        << kill 18 group
        >> 0 empty
        << kill 15 group
        << kill 18 group
        >> 0 empty
        == activating/auto-restart resources @0.1
        >> 0.1 timer
        << run main start 0 #2
        >> 0.2 started #2
        == active/running success
        """,
    ),
    "notify waits for READY=1": (
        "[Service]\nType=notify\nExecStart=/bin/a\nTimeoutStartSec=5\n",
        """
        >> 0 start
        << run main start 0 #1
        >> 0 started #1
        == activating/start success @5
        >> 1 ready #1
        == active/running success
        """,
    ),
    "notify that ends without a word broke the protocol": (
        "[Service]\nType=notify\nExecStart=/bin/a\nKillMode=process\n",
        """
        >> 0 start
        << run main start 0 #1
        >> 1 exit #1 0
        == failed/failed protocol
        """,
    ),
    "a start that takes too long": (
        "[Service]\nType=notify\nExecStart=/bin/a\nTimeoutStartSec=5\n",
        """
        >> 0 start
        << run main start 0 #1
        >> 5 timer
        << kill 15 group
        << kill 18 group
        == deactivating/stop-sigterm timeout @95
        """,
    ),
    "pulling an image is outside the start timeout": (
        "[Service]\nType=notify\nExecStart=/bin/a\nTimeoutStartSec=5\n",
        """
        >> 0 start
        << run main start 0 #1
        >> 1 pause #1
        == activating/start success
        >> 100 timer
        >> 101 resume #1
        == activating/start success @105
        """,
    ),
    "forking: the daemon is the main process": (
        "[Service]\nType=forking\nExecStart=/bin/a\nPIDFile=/run/a.pid\n",
        """
        >> 0 start
        << run control start 0 #1
        >> 1 exit #1 0
        == activating/start success @90
        >> 1 found #1
        == active/running success
        >> 9 exit #1 1
        << kill 15 group
        << kill 18 group
        >> 9 empty
        << kill 15 group
        << kill 18 group
        >> 9 empty
        == failed/failed exit-code
        """,
    ),
    "a lost monitor counts as a failure": (
        SIMPLE + "Restart=on-abnormal\nRestartSec=1\nKillMode=none\n",
        """
        >> 0 start
        << run main start 0 #1
        >> 1 lost #1
        == activating/auto-restart monitor-lost @2
        """,
    ),
    "the start limit": (
        "[Unit]\nStartLimitBurst=2\n[Service]\nExecStart=/bin/a\nRestart=always\nKillMode=none\nRestartSec=0\n",
        """
        >> 0 start
        << run main start 0 #1
        >> 1 exit #1 1
        == activating/auto-restart exit-code @1
        >> 1 timer
        << run main start 0 #2
        >> 2 exit #2 1
        >> 2 timer
        == failed/failed start-limit-hit
        >> 13 start
        << run main start 0 #3
        == active/running success
        """,
    ),
    "RestartPreventExitStatus": (
        SIMPLE + "Restart=always\nRestartPreventExitStatus=7\nKillMode=none\n",
        """
        >> 0 start
        << run main start 0 #1
        >> 1 exit #1 7
        == failed/failed exit-code
        """,
    ),
    "a clean signal is no failure, an unclean one is": (
        SIMPLE + "Restart=on-failure\nKillMode=none\nRestartSec=0\n",
        """
        >> 0 start
        << run main start 0 #1
        >> 1 killed #1 11
        == activating/auto-restart signal @1
        >> 1 timer
        << run main start 0 #2
        >> 2 killed #2 15
        == inactive/dead success
        """,
    ),
    "a stop ends the wait for a restart": (
        SIMPLE + "Restart=always\nKillMode=none\n",
        """
        >> 0 start
        << run main start 0 #1
        >> 1 exit #1 0
        == activating/auto-restart success @1.1
        >> 1 stop
        == inactive/dead success
        """,
    ),
    "a start while stopping is kept": (
        SIMPLE + "KillMode=process\n",
        """
        >> 0 start
        << run main start 0 #1
        >> 1 stop
        << kill 15 processes
        << kill 18 processes
        >> 2 start
        == deactivating/stop-sigterm success @91
        >> 3 killed #1 15
        << run main start 0 #2
        == active/running success
        """,
    ),
    "mixed: the rest dies hard": (
        SIMPLE + "KillMode=mixed\n",
        """
        >> 0 start
        << run main start 0 #1
        >> 1 stop
        << kill 15 processes
        << kill 18 processes
        >> 2 killed #1 15
        << kill 9 group
        >> 2 empty
        == inactive/dead success
        """,
    ),
    "a container that ends by our signal ended well": (
        SIMPLE + "KillMode=process\n",
        """
        >> 0 start
        << run main start 0 #1
        >> 1 stop
        << kill 15 processes
        << kill 18 processes
        >> 2 exit #1 143
        == inactive/dead success
        """,
    ),
    "reload does not disturb": (
        SIMPLE + "ExecReload=/bin/r\n",
        """
        >> 0 start
        << run main start 0 #1
        >> 1 reload
        << run control reload 0 #2
        == reloading/reload success @91
        >> 2 exit #2 5
        == active/running success
        """,
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_script(name: str) -> None:
    file, script = TABLE[name]
    play(file, re.sub(r"^\s+", "", script, flags=re.MULTILINE))
