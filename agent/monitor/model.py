"""What a monitor holds and what it tells: the specs and events that `link` carries. Plain values, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from agent.isolation import Isolation

Whom = Literal["main", "all"]


class MonitorError(Exception):
    """A monitor could not be started, is gone, or refused an order; the text says which and why."""


class MonitorLost(MonitorError):
    """No monitor answers in that run directory, or it went away while it was needed."""


class MonitorSilent(MonitorLost):
    """A monitor may be there, but it did not answer in time, or it could not be asked (too many open files)."""


@dataclass(frozen=True)
class Command:
    """A process to run. The environment is exactly `env` (plus NOTIFY_SOCKET where the spec asks for it)."""

    argv: tuple[str, ...]
    """`argv[0]` as the process sees it."""
    path: str = ""
    """Absolute path of the executable; empty means `argv[0]`, looked up in the PATH of `env`."""
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    cwd_optional: bool = False
    """A missing `cwd` is no error; the process starts in `/`."""
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] = ()
    umask: int = 0o022
    nice: int | None = None
    oom_score_adjust: int | None = None
    rlimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """`NOFILE` -> (soft, hard); -1 is infinity. Capped at the hard limit that may not be raised."""
    no_new_privileges: bool = False


@dataclass(frozen=True)
class Bundle:
    """An OCI container: the monitor calls `<runtime> create` at once and starts it on order."""

    path: Path
    container_id: str
    runtime: str = "runc"
    runtime_root: Path | None = None
    """`--root` of the runtime, or its default."""
    gate: bool = False
    """The runtime is runc: to start the container the monitor opens the gate that its init waits at; otherwise it calls
    `<runtime> start`."""


@dataclass(frozen=True)
class MonitorSpec:
    """What one monitor holds: a command or a bundle, never both."""

    id: str
    run_dir: Path
    """Holds the socket `control` and the record `exit.json`. Mode 0700, or 0711 where notifications are taken."""
    log_dir: Path
    command: Command | None = None
    bundle: Bundle | None = None
    type: Literal["simple", "exec", "oneshot", "forking", "notify"] = "simple"
    hold: bool = False
    """Wait for `Link.start()`; otherwise a command starts at once. A container always waits."""
    monitor_cgroups: tuple[Path, ...] = ()
    """Directories (one a hierarchy) that the monitor itself joins."""
    payload_cgroups: tuple[Path, ...] = ()
    """Directories that the payload joins before exec; also what `signal(..., "all")` reaches."""
    tty: bool = False
    stdin_open: bool = False
    """stdin is a pipe (or the tty) that attached clients write to; otherwise /dev/null."""
    notify: Literal["none", "main", "all"] = "none"
    """Whose messages on NOTIFY_SOCKET count."""
    pid_file: Path | None = None
    """Type=forking: where the daemon writes its pid; without it the only process left is the main one."""
    isolation: Isolation | None = None
    """When to end the payload without being told."""
    log_max_bytes: int = 10 * 1024 * 1024
    log_max_files: int = 5


@dataclass(frozen=True)
class Created:
    """The container exists and waits for `start`."""

    pid: int


@dataclass(frozen=True)
class Started:
    """The payload runs its program; for Type=forking, the first process does."""

    pid: int
    start_ticks: int = 0
    """Field 22 of /proc/<pid>/stat: with the pid it names the process for good."""


@dataclass(frozen=True)
class MainPid:
    """The main process is another than the one started (PIDFile=, a guess, or MAINPID=)."""

    pid: int
    start_ticks: int = 0


@dataclass(frozen=True)
class Forked:
    """Type=forking: the first process has ended with this code; `MainPid` or `Exited` follows."""

    code: int | None
    signal: int | None


@dataclass(frozen=True)
class Notify:
    """An accepted message on the notify socket, newline-separated assignments as sent."""

    text: str
    pid: int = 0


@dataclass(frozen=True)
class Exited:
    """The payload has ended and all that it printed is in the log. Exactly one of `code` and `signal` is set."""

    code: int | None
    signal: int | None
    at: float
    """Unix seconds."""
    boot: str
    """The kernel's boot id when it happened."""
    reason: str = ""
    """Empty for a payload that ran; else why it could not be started, in a sentence (codes 2xx are systemd's)."""
    dumped: bool = False


Event = Created | Started | MainPid | Forked | Notify | Exited


def event_of(message: Mapping[str, Any]) -> Event:
    """Read an event as the monitor sends it; ValueError when it is none."""
    match message["event"]:
        case "created":
            return Created(message["pid"])
        case "started":
            return Started(message["pid"], message["start_ticks"])
        case "mainpid":
            return MainPid(message["pid"], message["start_ticks"])
        case "forked":
            return Forked(message["code"], message["signal"])
        case "notify":
            return Notify(message["text"], message["pid"])
        case "exited":
            return Exited(
                message["code"],
                message["signal"],
                message["at"],
                message["boot"],
                message.get("reason", ""),
                message.get("dumped", False),
            )
    raise ValueError(f"unknown event {message['event']!r}")
