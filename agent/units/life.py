"""The values of a unit's life: its state, what can happen to it, what is to be done. `lifecycle` puts them together.

All are plain and frozen, so that a state can be saved and a history replayed. `at` is seconds since the machine's boot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agent.units.model import Phase

Sub = Literal[
    "dead",
    "condition",
    "start-pre",
    "start",
    "start-post",
    "running",
    "exited",
    "reload",
    "stop",
    "stop-sigterm",
    "stop-sigkill",
    "stop-post",
    "final-sigterm",
    "final-sigkill",
    "failed",
    "auto-restart",
]
Result = Literal[
    "success",
    "protocol",
    "timeout",
    "exit-code",
    "signal",
    "watchdog",
    "start-limit-hit",
    "resources",
    "exec-condition",
    "monitor-lost",
]
Role = Literal["main", "control"]

ACTIVE: dict[Sub, str] = {
    "dead": "inactive",
    "failed": "failed",
    "running": "active",
    "exited": "active",
    "reload": "reloading",
    "condition": "activating",
    "start-pre": "activating",
    "start": "activating",
    "start-post": "activating",
    "auto-restart": "activating",
}


@dataclass(frozen=True)
class State:
    """Where a unit is in its life."""

    sub: Sub = "dead"
    result: Result = "success"
    index: int = 0
    """Which command of the phase runs."""
    next_slot: int = 1
    """Every process gets a number of its own, never used again."""
    main: int | None = None
    """Slot of the main process while it lives."""
    main_pid: int | None = None
    control: int | None = None
    forked: int | None = None
    """Slot of a forking start command that has ended, until its monitor has found the daemon (MainFound)."""
    main_code: int | None = None
    """How the last main process ended; None while it never did."""
    main_signal: int | None = None
    deadline: float | None = None
    """When a TimerFired is due; the one timer of a unit."""
    starts: tuple[float, ...] = ()
    """Times of the last starts, for the start limit."""
    restarts: int = 0
    forbid_restart: bool = False
    """A stop was asked for: Restart= does not apply."""
    start_after_stop: bool = False
    """A start was asked for while the unit was stopping."""
    paused: float | None = None
    """Seconds that were left when the timer was halted (an image is being pulled)."""
    status: str = ""
    """What the unit says of itself by STATUS=."""

    @property
    def active(self) -> str:
        return ACTIVE.get(self.sub, "deactivating")

    @property
    def at_rest(self) -> bool:
        return self.sub in ("dead", "failed")


@dataclass(frozen=True)
class Start:
    at: float


@dataclass(frozen=True)
class Stop:
    at: float


@dataclass(frozen=True)
class Reload:
    at: float


@dataclass(frozen=True)
class Started:
    """The process of a slot runs its program."""

    slot: int
    pid: int
    at: float


@dataclass(frozen=True)
class Exited:
    """The process of a slot is gone: by code, by signal, or without anyone having seen how (`lost`)."""

    slot: int
    at: float
    code: int | None = None
    signal: int | None = None
    lost: bool = False
    unable: bool = False
    """It could not even be started for want of something (result `resources`)."""


@dataclass(frozen=True)
class MainFound:
    """The daemon that a forking service left behind is known: by PIDFile=, else as the only process left."""

    slot: int
    pid: int
    at: float


@dataclass(frozen=True)
class Notified:
    """A message on the notify socket."""

    slot: int
    at: float
    ready: bool = False
    stopping: bool = False
    main_pid: int | None = None
    status: str | None = None


@dataclass(frozen=True)
class TimerFired:
    at: float


@dataclass(frozen=True)
class Emptied:
    """No process of the unit is left."""

    at: float


@dataclass(frozen=True)
class Paused:
    """What the slot does now is outside the start timeout."""

    slot: int
    at: float


@dataclass(frozen=True)
class Resumed:
    slot: int
    at: float


Event = Start | Stop | Reload | Started | Exited | MainFound | Notified | TimerFired | Emptied | Paused | Resumed


@dataclass(frozen=True)
class Run:
    """Start command `index` of a phase as process `slot`."""

    slot: int
    role: Role
    phase: Phase
    index: int


@dataclass(frozen=True)
class Kill:
    """Signal the main and control processes alone, or the whole group; answered by Emptied when none is left."""

    signal: int
    whole_group: bool


Action = Run | Kill
