"""A docker command line, understood instead of executed: words -> :class:`DockerStep`. Pure.

Units use it for their Exec lines, `dock run` for its flags. What a container is made of is `agent/containers`' affair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, cast

from agent.units import docker_options as read
from agent.units.docker_options import ContainerOptions, Health
from agent.units.errors import BadValue, UnitError

Verb = Literal["run", "start", "stop", "kill", "rm", "pull"]
VERBS: frozenset[str] = frozenset({"run", "start", "stop", "kill", "rm", "pull"})
PROGRAMS = frozenset({"docker", "dock"})


class DockerLineError(UnitError):
    """A docker line that docker itself would refuse (exit code 125)."""


@dataclass(frozen=True)
class DockerStep:
    """What a docker line asks for."""

    verb: Verb
    options: ContainerOptions | None = None
    """For run alone."""
    targets: tuple[str, ...] = ()
    """Containers, or the image for pull."""
    foreground: bool = False
    """It lasts until the container exits and ends with its code: `run` without -d, `start -a`."""
    interactive: bool = False
    """`start -i`."""
    signal: str = ""
    timeout: float | None = None
    force: bool = False
    volumes: bool = False
    notices: tuple[str, ...] = ()
    """What of the line is ignored, as sentences."""


@dataclass(frozen=True)
class _Flag:
    field: str
    read: Callable[[str], Any]
    takes_value: bool = True
    many: bool = False
    """Adds to a tuple; a reader that answers several gives a list."""


def _one(field: str, reader: Callable[[str], Any] = str) -> _Flag:
    return _Flag(field, reader)


def _many(field: str, reader: Callable[[str], Any] = str) -> _Flag:
    return _Flag(field, reader, many=True)


def _switch(field: str) -> _Flag:
    return _Flag(field, _boolean, takes_value=False)


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1", "t"):
        return True
    if text.lower() in ("false", "0", "f"):
        return False
    raise BadValue(f"'{text}' is neither true nor false")


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise BadValue(f"'{text}' is not a whole number") from None


def _decimal(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e6:
        raise BadValue(f"'{text}' is not a number of CPUs")
    return number


_RUN: dict[str, _Flag] = {
    "add-host": _many("add_hosts", read.host),
    "attach": _many("attach"),
    "blkio-weight": _one("blkio_weight", _integer),
    "cap-add": _many("cap_add", read.capability),
    "cap-drop": _many("cap_drop", read.capability),
    "cgroup-parent": _one("cgroup_parent"),
    "cgroupns": _one("cgroupns_mode"),
    "cidfile": _one("cid_file"),
    "cpu-period": _one("cpu_period", _integer),
    "cpu-quota": _one("cpu_quota", _integer),
    "cpu-shares": _one("cpu_shares", _integer),
    "cpus": _one("cpus", _decimal),
    "cpuset-cpus": _one("cpuset_cpus"),
    "cpuset-mems": _one("cpuset_mems"),
    "detach": _switch("detach"),
    "detach-keys": _one("detach_keys"),
    "device": _many("devices"),
    "dns": _many("dns"),
    "dns-opt": _many("dns_options"),
    "dns-option": _many("dns_options"),
    "dns-search": _many("dns_search"),
    "domainname": _one("domainname"),
    "entrypoint": _one("entrypoint"),
    "env": _many("env", read.variable),
    "env-file": _many("env_files"),
    "expose": _many("expose", lambda text: list(read.exposed(text))),
    "group-add": _many("groups"),
    "health-cmd": _one("health.command"),
    "health-interval": _one("health.interval", read.span),
    "health-retries": _one("health.retries", _integer),
    "health-start-period": _one("health.start_period", read.span),
    "health-timeout": _one("health.timeout", read.span),
    "hostname": _one("hostname"),
    "init": _switch("init"),
    "interactive": _switch("interactive"),
    "ip": _one("ip", read.address),
    "ipc": _one("ipc_mode"),
    "kernel-memory": _one("kernel_memory", read.size),
    "label": _many("labels", read.pair),
    "label-file": _many("label_files"),
    "link": _many("links", read.link),
    "log-driver": _one("log_driver"),
    "log-opt": _many("log_options", read.pair),
    "mac-address": _one("mac_address"),
    "memory": _one("memory", read.size),
    "memory-reservation": _one("memory_reservation", read.size),
    "memory-swap": _one("memory_swap", read.size),
    "memory-swappiness": _one("memory_swappiness", _integer),
    "mount": _many("mounts", read.mount),
    "name": _one("name"),
    "net": _one("network"),
    "net-alias": _many("network_aliases"),
    "network": _one("network"),
    "network-alias": _many("network_aliases"),
    "no-healthcheck": _switch("health.disabled"),
    "oom-kill-disable": _switch("oom_kill_disable"),
    "oom-score-adj": _one("oom_score_adj", _integer),
    "pid": _one("pid_mode"),
    "pids-limit": _one("pids_limit", _integer),
    "platform": _one("platform"),
    "privileged": _switch("privileged"),
    "publish": _many("ports", lambda text: list(read.published(text))),
    "publish-all": _switch("publish_all"),
    "pull": _one("pull"),
    "read-only": _switch("read_only"),
    "restart": _one("restart", read.restart_policy),
    "rm": _switch("remove"),
    "runtime": _one("runtime"),
    "security-opt": _many("security_options"),
    "shm-size": _one("shm_size", read.size),
    "sig-proxy": _switch("sig_proxy"),
    "stop-signal": _one("stop_signal"),
    "stop-timeout": _one("stop_timeout", _integer),
    "sysctl": _many("sysctls", read.pair),
    "tmpfs": _many("mounts", read.tmpfs),
    "tty": _switch("tty"),
    "ulimit": _many("ulimits", read.ulimit),
    "user": _one("user"),
    "userns": _one("userns_mode"),
    "uts": _one("uts_mode"),
    "volume": _many("mounts", read.volume),
    "volume-driver": _one("volume_driver"),
    "volumes-from": _many("volumes_from"),
    "workdir": _one("working_directory"),
}
_SHORT = {
    "a": "attach",
    "c": "cpu-shares",
    "d": "detach",
    "e": "env",
    "h": "hostname",
    "i": "interactive",
    "l": "label",
    "m": "memory",
    "p": "publish",
    "P": "publish-all",
    "t": "tty",
    "u": "user",
    "v": "volume",
    "w": "workdir",
}
_START = {"attach": _switch("attach"), "interactive": _switch("interactive"), "detach-keys": _one("detach_keys")}
_STOP = {"time": _one("time", _integer), "timeout": _one("time", _integer), "signal": _one("signal")}
_KILL = {"signal": _one("signal")}
_RM = {"force": _switch("force"), "volumes": _switch("volumes"), "link": _switch("link")}
_PULL = {"all-tags": _switch("all_tags"), "quiet": _switch("quiet"), "platform": _one("platform")}
_PULL["disable-content-trust"] = _switch("trust")
_OTHERS: dict[str, tuple[dict[str, _Flag], dict[str, str]]] = {
    "start": (_START, {"a": "attach", "i": "interactive"}),
    "stop": (_STOP, {"t": "time", "s": "signal"}),
    "kill": (_KILL, {"s": "signal"}),
    "rm": (_RM, {"f": "force", "v": "volumes", "l": "link"}),
    "pull": (_PULL, {"a": "all-tags", "q": "quiet"}),
}
_GLOBAL_WITH_VALUE = frozenset(
    {"-H", "--host", "--config", "-c", "--context", "-l", "--log-level", "--tlscacert", "--tlscert", "--tlskey"}
)


def is_docker(path: str) -> bool:
    """Whether a command is docker's or ours, wherever it is said to live."""
    return path.rpartition("/")[2] in PROGRAMS


def parse_docker_line(words: Sequence[str]) -> DockerStep | None:
    """Understand a command line (program first). None for one that is not docker's, or has another verb: it is executed
    as any other command. A line that docker would refuse is a DockerLineError."""
    if not words or not is_docker(words[0]):
        return None
    rest = _skip_global_flags(list(words[1:]))
    if rest and rest[0] in ("container", "image"):
        rest = rest[1:]
    if not rest or rest[0] not in VERBS:
        return None
    verb = cast(Verb, rest[0])
    if verb == "run":
        options = parse_run_flags(rest[1:])
        return DockerStep(verb, options, foreground=not options.detach, notices=_run_notices(options))
    flags, short = _OTHERS[verb]
    found, targets = _read_flags(rest[1:], flags, short, verb, interspersed=True)
    if not targets:
        raise DockerLineError(f"docker {verb} needs {'an image' if verb == 'pull' else 'a container'}.")
    if verb == "pull" and len(targets) > 1:
        raise DockerLineError("docker pull takes one image.")
    attach = bool(found.get("attach") or found.get("interactive"))
    if attach and len(targets) > 1:
        raise DockerLineError("docker start -a takes one container.")
    timeout = found.get("time")
    return DockerStep(
        verb,
        targets=tuple(targets),
        foreground=verb == "start" and attach,
        interactive=bool(found.get("interactive")),
        signal=found.get("signal", ""),
        timeout=None if timeout is None else float(timeout),
        force=found.get("force", False),
        volumes=found.get("volumes", False),
    )


def parse_run_flags(words: Sequence[str], verb: str = "run") -> ContainerOptions:
    """Read what stands behind `docker run` (or `create`): flags, image, command."""
    found, rest = _read_flags(words, _RUN, _SHORT, verb, interspersed=False)
    if not rest:
        raise DockerLineError(f"docker {verb} needs an image.")
    health = Health(**{key[7:]: found.pop(key) for key in list(found) if key.startswith("health.")})
    known = {field.name for field in fields(ContainerOptions)}
    assert known.issuperset(found), f"flags without a field: {set(found) - known}"
    options = ContainerOptions(**found)
    options = replace(options, image=rest[0], command=tuple(rest[1:]), health=health)
    if options.remove and options.restart != "no":
        raise DockerLineError(f"docker {verb}: --rm and --restart can't be combined.")
    if options.cpus is not None and (options.cpu_quota is not None or options.cpu_period is not None):
        raise DockerLineError(f"docker {verb}: --cpus can't be combined with --cpu-quota or --cpu-period.")
    if options.detach and options.attach:
        raise DockerLineError(f"docker {verb}: -a and -d can't be combined.")
    return options


def _run_notices(options: ContainerOptions) -> tuple[str, ...]:
    notices = list(read.without_effect(options))
    if options.restart != "no":
        notices.append(f"--restart={options.restart} is ignored: in a unit, Restart= decides.")
    if options.detach:
        notices.append("docker run -d ends at once; the unit is over then unless it is Type=oneshot or forking.")
    return tuple(notices)


def _skip_global_flags(words: list[str]) -> list[str]:
    while words and words[0].startswith("-"):
        words = words[2:] if words[0] in _GLOBAL_WITH_VALUE else words[1:]
    return words


def _read_flags(
    words: Sequence[str], flags: dict[str, _Flag], short: dict[str, str], verb: str, *, interspersed: bool
) -> tuple[dict[str, Any], list[str]]:
    """Read flags as Docker's command line does (`--a=b`, `--a b`, `-ab`, `-p80`); the rest is arguments."""
    found: dict[str, Any] = {}
    rest: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if word == "--":
            rest.extend(queue)
            break
        if word == "-" or not word.startswith("-"):
            rest.append(word)
            if not interspersed:
                rest.extend(queue)
                break
            continue
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            if name not in flags:
                raise DockerLineError(f"docker {verb}: unknown flag: --{name}.")
            _store(found, flags[name], f"--{name}", value if equals else None, queue, verb)
            continue
        cluster = word[1:]
        while cluster:
            letter, cluster = cluster[0], cluster[1:]
            if letter not in short:
                raise DockerLineError(f"docker {verb}: unknown shorthand flag: '{letter}' in {word}.")
            flag = flags[short[letter]]
            value_here: str | None = None
            if flag.takes_value and cluster:
                value_here, cluster = cluster.removeprefix("="), ""
            elif cluster.startswith("="):
                value_here, cluster = cluster[1:], ""
            _store(found, flag, f"-{letter}", value_here, queue, verb)
    return found, rest


def _store(found: dict[str, Any], flag: _Flag, name: str, value: str | None, queue: list[str], verb: str) -> None:
    if value is None:
        if not flag.takes_value:
            value = "true"
        elif queue:
            value = queue.pop(0)
        else:
            raise DockerLineError(f"docker {verb}: flag needs an argument: {name}.")
    try:
        result = flag.read(value)
    except BadValue as error:
        raise DockerLineError(f"docker {verb}: {name}: {error.reason}.") from None
    if flag.many:
        more = tuple(result) if isinstance(result, list) else (result,)
        found[flag.field] = found.get(flag.field, ()) + more
    else:
        found[flag.field] = result
