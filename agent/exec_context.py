"""What a unit's process runs in: user, directory, environment, limits, control groups. It looks up; it starts nothing.

Source: systemd.exec(5). The process itself is `processes`' affair.
"""

from __future__ import annotations

import grp
import math
import os
import pwd
import sys
from dataclasses import dataclass
from pathlib import Path

from agent.cgroups import Limits
from agent.monitor.model import Command as MonitorCommand
from agent.units.command import Command, expand_variables
from agent.units.errors import BadValue, UnitError
from agent.units.model import Resources, Service, Unit
from agent.units.words import split_words

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LIBEXEC = Path(sys.prefix) / "libexec" / "fleetd"
"""First in the PATH of units: `docker` is there our `dock`, so that lines through a shell reach our containers. Nobody
else has this folder in PATH: a real docker of the machine's users is not hidden from them."""


PIDS_WHOLE = 32_768
"""What a percentage of TasksMax= is of: the kernel's usual pid_max (proc(5))."""
MIN_SHARES, MAX_SHARES, SHARES_OF_DEFAULT_WEIGHT = 2, 262_144, 1_024
"""cpu.shares that the kernel takes, and those that stand for the CPUWeight= of 100."""
DEFAULT_WEIGHT = 100


class ContextError(UnitError):
    """A process can't be given what its unit asks for (no such user, no such file); result `resources`."""


@dataclass(frozen=True)
class Outcome:
    """What is known of the main process when ExecStop= or ExecStopPost= runs."""

    main_pid: int | None = None
    result: str = ""
    exit_code: str = ""
    exit_status: str = ""


@dataclass(frozen=True)
class _Identity:
    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str
    home: str
    shell: str


def _identity(service: Service) -> _Identity | None:
    if service.user is None and service.group is None:
        return None
    try:
        account = _account(service.user or "root")
    except KeyError:
        raise ContextError(f"The user '{service.user}' (User=) does not exist on this machine.") from None
    try:
        gid = _group(service.group) if service.group else account.pw_gid
        extra = tuple(_group(name) for name in service.supplementary_groups)
    except KeyError as error:
        raise ContextError(f"The group {error} (Group=) does not exist on this machine.") from None
    groups = tuple(dict.fromkeys((*os.getgrouplist(account.pw_name, gid), *extra)))
    return _Identity(account.pw_uid, gid, groups, account.pw_name, account.pw_dir, account.pw_shell)


def _account(name: str) -> pwd.struct_passwd:
    return pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)


def _group(name: str) -> int:
    return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid


def make_libexec() -> None:
    """Have the programs in `LIBEXEC`. OSError when this installation can't be written to."""
    program = LIBEXEC / "docker"
    target = Path(sys.executable).parent / "dock"
    if program.is_symlink() and program.readlink() == target:
        return
    LIBEXEC.mkdir(mode=0o755, parents=True, exist_ok=True)
    fresh = program.with_name(f"docker.{os.getpid()}")
    fresh.symlink_to(target)
    fresh.replace(program)


def environment(unit: Unit, outcome: Outcome, privileged: bool = False) -> dict[str, str]:
    """The variables of a unit's process: PATH, the user's, Environment=, the files', systemd's."""
    service = unit.service
    assert service is not None
    env = {"PATH": f"{LIBEXEC}:{DEFAULT_PATH}", "LANG": "C.UTF-8"}
    identity = None if privileged else _identity(service)
    if identity is not None:
        env |= {"USER": identity.name, "LOGNAME": identity.name, "HOME": identity.home, "SHELL": identity.shell}
    env |= service.environment
    for file in service.environment_files:
        env |= _environment_file(Path(file.path), file.optional)
    for entry in service.unset_environment:
        name, equals, value = entry.partition("=")
        if not equals or env.get(name) == value:
            env.pop(name, None)
    if outcome.main_pid is not None:
        env["MAINPID"] = str(outcome.main_pid)
    if outcome.result:
        env["SERVICE_RESULT"] = outcome.result
    if outcome.exit_code:
        env |= {"EXIT_CODE": outcome.exit_code, "EXIT_STATUS": outcome.exit_status}
    if service.runtime_directory:
        env["RUNTIME_DIRECTORY"] = ":".join(f"/run/{name}" for name in service.runtime_directory)
    if service.state_directory:
        env["STATE_DIRECTORY"] = ":".join(f"/var/lib/{name}" for name in service.state_directory)
    return env


def _environment_file(path: Path, optional: bool) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        if optional:
            return {}
        said = f"can't be read: {error.strerror}" if isinstance(error, OSError) else f"is not UTF-8: {error}"
        raise ContextError(f"{path} (EnvironmentFile=) {said}.") from error
    found = {}
    for line in text.replace("\\\n", "").splitlines():
        name, equals, value = line.strip().partition("=")
        if not equals or name.startswith(("#", ";")) or not name.replace("_", "a").isalnum():
            continue
        value = value.strip()
        if value[:1] in ("'", '"'):
            try:
                value = "".join(word.text for word in split_words(value, keep_unknown=True))
            except BadValue as error:
                raise ContextError(f"{path} (EnvironmentFile=), {name}: {error.reason}.") from None
        found[name] = value
    return found


def monitor_command(unit: Unit, command: Command, outcome: Outcome) -> MonitorCommand:
    """The process that a command stands for. ContextError when its unit asks for what is not here."""
    service = unit.service
    assert service is not None
    env = environment(unit, outcome, command.privileged)
    identity = None if command.privileged else _identity(service)
    cwd = service.working_directory or "/"
    if cwd == "~":
        cwd = identity.home if identity is not None else "/root"
    for folder, base in ((service.runtime_directory, "/run"), (service.state_directory, "/var/lib")):
        for name in folder:
            path = Path(base, name)
            path.mkdir(parents=True, exist_ok=True)
            if identity is not None:
                os.chown(path, identity.uid, identity.gid)
    return MonitorCommand(
        argv=expand_variables(command, env),
        path=command.path if command.path.startswith("/") else "",
        env=env,
        cwd=cwd,
        cwd_optional=service.working_directory_optional,
        uid=None if identity is None else identity.uid,
        gid=None if identity is None else identity.gid,
        groups=() if identity is None else identity.groups,
        umask=service.umask,
        nice=service.nice,
        oom_score_adjust=service.oom_score_adjust,
        rlimits=dict(service.limits),
    )


def _share(number: float | None, whole: int) -> int | None:
    if number is None or number == math.inf:
        return None
    return int(-number * whole) if number < 0 else int(number)


def limits(resources: Resources) -> Limits:
    """The limits of a unit's control group; percentages become shares of this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    shares = resources.cpu_shares
    if shares is None and resources.cpu_weight is not None:
        wanted = resources.cpu_weight * SHARES_OF_DEFAULT_WEIGHT // DEFAULT_WEIGHT
        shares = max(MIN_SHARES, min(MAX_SHARES, wanted))
    return Limits(
        memory_max=_share(resources.memory_max, memory),
        swap_max=_share(resources.memory_swap_max, memory),
        cpus=None if resources.cpu_quota is None else resources.cpu_quota / 100,
        cpu_shares=shares,
        pids_max=_share(resources.tasks_max, PIDS_WHOLE),
    )
