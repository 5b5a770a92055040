"""The table of keys: for each section and key, the field that it fills and how its value is read.

Source: systemd.unit(5), systemd.service(5), systemd.exec(5), systemd.kill(5), systemd.resource-control(5), and fleet's
unit file documentation for [X-Fleet].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

from agent.units import values
from agent.units.errors import BadValue
from agent.units.model import KillMode, Restart, ServiceType


def _text(value: str) -> str:
    return value


@dataclass(frozen=True)
class Key:
    """How one key is read: `kind` names the reader, `fields` what it fills, `read` a single value."""

    kind: str
    fields: tuple[str, ...]
    read: Callable[[str], Any] = _text
    argument: str = ""

    @property
    def field(self) -> str:
        return self.fields[0]


def _one_of(*allowed: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in allowed:
            raise BadValue(f"'{value}' is not one of {', '.join(allowed)}")
        return value

    return read


def _type(value: str) -> str:
    if value == "idle":
        return "simple"
    if value in ("dbus", "notify-reload"):
        raise BadValue(f"Type={value} is not supported; use simple, exec, oneshot, forking or notify")
    return _one_of(*get_args(ServiceType))(value)


def _stream(value: str) -> str:
    plain = ("inherit", "null", "tty", "journal", "syslog", "kmsg", "journal+console", "syslog+console", "kmsg+console")
    if value in plain:
        return value
    name, colon, path = value.partition(":")
    if colon and name in ("file", "append", "truncate") and path.startswith("/"):
        return value
    raise BadValue(f"'{value}' is not a place for output (journal, null, inherit, append:/path ...)")


def _scalar(field: str, read: Callable[[str], Any] = _text) -> Key:
    return Key("scalar", (field,), read)


def _list(field: str, read: Callable[[str], Any] = _text) -> Key:
    return Key("list", (field,), read)


def _resource(argument: str, read: Callable[[str], Any]) -> Key:
    return Key("resource", ("resources",), read, argument)


_span = values.seconds
_bool = values.boolean
_weight = partial(values.integer, low=1, high=10000)

_UNIT: dict[str, Key] = {
    "Description": _scalar("description"),
    "Documentation": _list("documentation"),
    "Requires": _list("requires"),
    "Requisite": _list("requisite"),
    "Wants": _list("wants"),
    "BindsTo": _list("binds_to"),
    "BindTo": _list("binds_to"),
    "PartOf": _list("part_of"),
    "Conflicts": _list("conflicts"),
    "After": _list("after"),
    "Before": _list("before"),
    "OnFailure": _list("on_failure"),
    "StartLimitIntervalSec": _scalar("start_limit_interval", _span),
    "StartLimitInterval": _scalar("start_limit_interval", _span),
    "StartLimitBurst": _scalar("start_limit_burst", values.integer),
}

_SERVICE: dict[str, Key] = {
    "Type": _scalar("type", _type),
    "RemainAfterExit": _scalar("remain_after_exit", _bool),
    "PIDFile": _scalar("pid_file", lambda text: text if text.startswith("/") else f"/run/{text}"),
    "ExecCondition": Key("commands", ("exec_condition",)),
    "ExecStartPre": Key("commands", ("start_pre",)),
    "ExecStart": Key("commands", ("start",)),
    "ExecStartPost": Key("commands", ("start_post",)),
    "ExecReload": Key("commands", ("reload",)),
    "ExecStop": Key("commands", ("stop",)),
    "ExecStopPost": Key("commands", ("stop_post",)),
    "Restart": _scalar("restart", _one_of(*get_args(Restart))),
    "RestartSec": _scalar("restart_sec", _span),
    "TimeoutStartSec": Key("timeouts", ("timeout_start",)),
    "TimeoutStopSec": Key("timeouts", ("timeout_stop",)),
    "TimeoutSec": Key("timeouts", ("timeout_start", "timeout_stop")),
    "RuntimeMaxSec": Key("timeouts", ("runtime_max",)),
    "SuccessExitStatus": Key("statuses", ("success_codes", "success_signals")),
    "RestartPreventExitStatus": Key("statuses", ("prevent_codes", "prevent_signals")),
    "RestartForceExitStatus": Key("statuses", ("force_codes", "force_signals")),
    "KillMode": _scalar("kill_mode", _one_of(*get_args(KillMode))),
    "KillSignal": _scalar("kill_signal", values.signal),
    "FinalKillSignal": _scalar("final_kill_signal", values.signal),
    "SendSIGKILL": _scalar("send_sigkill", _bool),
    "SendSIGHUP": _scalar("send_sighup", _bool),
    "NotifyAccess": _scalar("notify_access", _one_of("none", "main", "exec", "all")),
    "User": _scalar("user"),
    "Group": _scalar("group"),
    "SupplementaryGroups": _list("supplementary_groups"),
    "WorkingDirectory": Key("directory", ("working_directory", "working_directory_optional")),
    "UMask": _scalar("umask", values.mode),
    "Nice": _scalar("nice", partial(values.integer, low=-20, high=19)),
    "OOMScoreAdjust": _scalar("oom_score_adjust", partial(values.integer, low=-1000, high=1000)),
    "Environment": Key("environment", ("environment",)),
    "EnvironmentFile": Key("environment-file", ("environment_files",)),
    "UnsetEnvironment": _list("unset_environment"),
    "StandardOutput": _scalar("standard_output", _stream),
    "StandardError": _scalar("standard_error", _stream),
    "RuntimeDirectory": _list("runtime_directory"),
    "StateDirectory": _list("state_directory"),
    "MemoryMax": _resource("memory_max", values.memory),
    "MemoryLimit": _resource("memory_max", values.memory),
    "MemorySwapMax": _resource("memory_swap_max", values.size),
    "CPUQuota": _resource("cpu_quota", values.percent),
    "CPUShares": _resource("cpu_shares", partial(values.integer, low=2, high=262144)),
    "CPUWeight": _resource("cpu_weight", _weight),
    "TasksMax": _resource("tasks_max", values.count_limit),
    **{f"Limit{name}": Key("limit", ("limits",), argument=name) for name in values.LIMIT_NAMES},
}

_INSTALL: dict[str, Key] = {
    "WantedBy": _list("wanted_by"),
    "RequiredBy": _list("required_by"),
    "Alias": _list("alias"),
    "Also": _list("also"),
    "DefaultInstance": _scalar("default_instance"),
}

_FLEET: dict[str, Key] = {
    "MachineID": _scalar("machine_id"),
    "MachineMetadata": Key("metadata", ("machine_metadata",)),
    "MachineOf": _list("machine_of"),
    "Conflicts": _list("conflicts"),
    "Global": _scalar("global_", _bool),
    "Replaces": _list("replaces"),
    "RescheduleAfter": _scalar("reschedule_after", _span),
    "RunWhenIsolated": _scalar("run_when_isolated", _bool),
    "StopWhenIsolated": _scalar("stop_when_isolated", _span),
    # What fleet before 0.8 called them.
    "X-ConditionMachineID": _scalar("machine_id"),
    "X-ConditionMachineMetadata": Key("metadata", ("machine_metadata",)),
    "X-ConditionMachineOf": _list("machine_of"),
    "X-Conflicts": _list("conflicts"),
}

# systemd still reads these two in [Service], their older home.
_MOVED = {key: _UNIT[key] for key in ("StartLimitInterval", "StartLimitIntervalSec", "StartLimitBurst")}
MOVED_TO_UNIT: Mapping[str, Key] = _MOVED

KEYS: Mapping[str, Mapping[str, Key]] = {"Unit": _UNIT, "Service": _SERVICE, "Install": _INSTALL, "X-Fleet": _FLEET}

_IGNORED_SERVICE = """
BusName Sockets NonBlocking PermissionsStartOnly RootDirectoryStartOnly CapabilityBoundingSet AmbientCapabilities
NoNewPrivileges PrivateTmp PrivateDevices PrivateNetwork ProtectSystem ProtectHome ReadWritePaths ReadOnlyPaths
InaccessiblePaths Slice Delegate CPUAccounting MemoryAccounting TasksAccounting IOAccounting BlockIOWeight CPUAffinity
IOSchedulingClass IOSchedulingPriority CPUSchedulingPolicy SyslogFacility SyslogLevel LogLevelMax DynamicUser PAMName
SystemCallFilter OOMPolicy TimeoutAbortSec TimeoutStartFailureMode TimeoutStopFailureMode ExitType ReloadSignal
FileDescriptorStoreMax RestartSteps RestartMaxDelaySec CacheDirectory LogsDirectory ConfigurationDirectory
UtmpIdentifier UtmpMode GuessMainPID WatchdogSec RootDirectory StandardInput TTYPath MemoryHigh IOWeight
SyslogIdentifier
"""
_IGNORED_UNIT = """
ConditionPathExists ConditionFileNotEmpty ConditionHost AssertPathExists RequiresMountsFor StopWhenUnneeded Upholds
RefuseManualStart RefuseManualStop AllowIsolate IgnoreOnIsolate JobTimeoutSec JobTimeoutAction OnSuccess SourcePath
StartLimitAction FailureAction SuccessAction JoinsNamespaceOf PropagatesReloadTo ReloadPropagatedFrom
DefaultDependencies
"""
_IGNORED: Mapping[str, frozenset[str]] = {
    "Service": frozenset(_IGNORED_SERVICE.split()),
    "Unit": frozenset(_IGNORED_UNIT.split()),
}


def ignored_keys(section: str) -> frozenset[str]:
    """Keys that systemd knows and this system does not act upon."""
    return _IGNORED.get(section, frozenset())
