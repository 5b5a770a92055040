"""What a unit file says, as frozen values. How it is read is `spec`'s affair, what is done with it the supervisor's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from signal import SIGHUP, SIGINT, SIGKILL, SIGPIPE, SIGTERM
from types import MappingProxyType
from typing import Literal, get_args

from agent.units.command import Command
from agent.units.errors import Notice
from agent.units.names import UnitName, parse_name

ServiceType = Literal["simple", "exec", "oneshot", "forking", "notify"]
Restart = Literal["no", "on-success", "on-failure", "on-abnormal", "on-abort", "on-watchdog", "always"]
KillMode = Literal["control-group", "mixed", "process", "none"]
Phase = Literal["condition", "start-pre", "start", "start-post", "reload", "stop", "stop-post"]
PHASES: tuple[Phase, ...] = get_args(Phase)
CLEAN_SIGNALS = frozenset(int(number) for number in (SIGHUP, SIGINT, SIGTERM, SIGPIPE))


@dataclass(frozen=True)
class XFleet:
    """The section [X-Fleet]: what the scheduler goes by."""

    machine_id: str | None = None
    """An id, or the first characters of one; None when any machine will do."""
    machine_metadata: tuple[tuple[str, str], ...] = ()
    """(key, value) pairs; one value of each key must match."""
    machine_of: tuple[str, ...] = ()
    """Units whose machine this one must share."""
    conflicts: tuple[str, ...] = ()
    """Globs of unit names that may not be on the same machine."""
    global_: bool = False
    replaces: tuple[str, ...] = ()
    """Globs of units that move away from the machine this one is placed on."""
    reschedule_after: float | None = None
    """Seconds that a lost machine is waited for before the unit moves."""
    run_when_isolated: bool = False
    """Start after a reboot though the cluster can't be asked."""
    stop_when_isolated: float | None = None
    """Seconds without the cluster after which the unit is stopped."""

    @property
    def required_metadata(self) -> Mapping[str, frozenset[str]]:
        """For each key the values that will do."""
        wanted: dict[str, frozenset[str]] = {}
        for key, value in self.machine_metadata:
            wanted[key] = wanted.get(key, frozenset()) | {value}
        return wanted

    def replaces_unit(self, unit: str) -> bool:
        return any(fnmatchcase(unit, glob) for glob in self.replaces)


@dataclass(frozen=True)
class UnitSection:
    """The section [Unit]."""

    description: str = ""
    documentation: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    requisite: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()
    binds_to: tuple[str, ...] = ()
    part_of: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    on_failure: tuple[str, ...] = ()
    start_limit_interval: float = 10.0
    start_limit_burst: int = 5


@dataclass(frozen=True)
class Install:
    """The section [Install]."""

    wanted_by: tuple[str, ...] = ()
    required_by: tuple[str, ...] = ()
    alias: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    default_instance: str = ""


@dataclass(frozen=True)
class Resources:
    """Limits of the unit's control group; None is no limit. A negative number is a share of the machine's whole."""

    memory_max: float | None = None
    memory_swap_max: float | None = None
    cpu_quota: float | None = None
    """Per cent of one CPU."""
    cpu_shares: int | None = None
    cpu_weight: int | None = None
    tasks_max: float | None = None


@dataclass(frozen=True)
class EnvironmentFile:
    path: str
    optional: bool = False


@dataclass(frozen=True)
class Service:
    """The section [Service]."""

    type: ServiceType = "simple"
    remain_after_exit: bool = False
    pid_file: str | None = None
    exec_condition: tuple[Command, ...] = ()
    start_pre: tuple[Command, ...] = ()
    start: tuple[Command, ...] = ()
    start_post: tuple[Command, ...] = ()
    reload: tuple[Command, ...] = ()
    stop: tuple[Command, ...] = ()
    stop_post: tuple[Command, ...] = ()
    restart: Restart = "no"
    restart_sec: float = 0.1
    timeout_start: float = 90.0
    """Seconds; infinity when there is no bound."""
    timeout_stop: float = 90.0
    runtime_max: float = math.inf
    success_codes: frozenset[int] = frozenset()
    success_signals: frozenset[int] = frozenset()
    prevent_codes: frozenset[int] = frozenset()
    prevent_signals: frozenset[int] = frozenset()
    force_codes: frozenset[int] = frozenset()
    force_signals: frozenset[int] = frozenset()
    kill_mode: KillMode = "control-group"
    kill_signal: int = int(SIGTERM)
    final_kill_signal: int = int(SIGKILL)
    send_sigkill: bool = True
    send_sighup: bool = False
    notify_access: Literal["none", "main", "exec", "all"] = "none"
    user: str | None = None
    group: str | None = None
    supplementary_groups: tuple[str, ...] = ()
    working_directory: str | None = None
    working_directory_optional: bool = False
    umask: int = 0o022
    nice: int | None = None
    oom_score_adjust: int | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    environment_files: tuple[EnvironmentFile, ...] = ()
    unset_environment: tuple[str, ...] = ()
    limits: Mapping[str, tuple[int, int]] = field(default_factory=lambda: MappingProxyType({}))
    """RLIMIT name without its prefix -> (soft, hard), -1 for unlimited."""
    resources: Resources = Resources()
    standard_output: str = "journal"
    standard_error: str = "inherit"
    runtime_directory: tuple[str, ...] = ()
    state_directory: tuple[str, ...] = ()

    def commands(self, phase: Phase) -> tuple[Command, ...]:
        """The commands of a phase, in order."""
        match phase:
            case "condition":
                return self.exec_condition
            case "start-pre":
                return self.start_pre
            case "start":
                return self.start
            case "start-post":
                return self.start_post
            case "reload":
                return self.reload
            case "stop":
                return self.stop
            case "stop-post":
                return self.stop_post

    def is_success(self, code: int | None, signal: int | None) -> bool:
        """Whether a main process that ended so has ended well."""
        if code is not None:
            return code == 0 or code in self.success_codes
        if signal in self.success_signals:
            return True
        return signal in CLEAN_SIGNALS and self.type != "oneshot"


@dataclass(frozen=True)
class Unit:
    """A unit file, read."""

    name: str
    text: str
    unit: UnitSection
    fleet: XFleet
    install: Install
    service: Service | None
    """None unless the name ends in .service."""
    notices: tuple[Notice, ...] = ()

    @property
    def parts(self) -> UnitName:
        return parse_name(self.name)

    @property
    def description(self) -> str:
        return self.unit.description or self.name
