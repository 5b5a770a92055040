"""The flags of `docker run` as one frozen value, and the readers of their single values. Pure.

Source: Docker's command reference, "docker container run". Verbs and unit lines are `docker_line`'s.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from agent.units.capabilities import ALL_CAPABILITIES
from agent.units.errors import BadValue

PORT_LIMIT = 65535
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([bkmgt]?)(?:i?b)?", re.IGNORECASE)
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class PublishedPort:
    """`-p`: one port of the container made reachable on the host; host_port 0 means any free one."""

    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""
    host_port: int = 0


@dataclass(frozen=True)
class Mount:
    """`-v` or `--mount`: what shows up at `target`. An empty source is an anonymous volume."""

    target: str
    source: str = ""
    kind: str = "volume"
    """bind, volume or tmpfs."""
    read_only: bool = False
    options: tuple[str, ...] = ()
    make: bool = False
    """A directory of the host that is missing is made: `-v` does so, `--mount` does not."""


@dataclass(frozen=True)
class Link:
    """`--link container:alias`."""

    container: str
    alias: str


@dataclass(frozen=True)
class Ulimit:
    name: str
    soft: int
    hard: int


@dataclass(frozen=True)
class Health:
    """`--health-*`; None where the image decides."""

    command: str | None = None
    interval: float | None = None
    timeout: float | None = None
    start_period: float | None = None
    retries: int | None = None
    disabled: bool = False


@dataclass(frozen=True)
class ContainerOptions:
    """Everything that `docker run` or `docker create` can say about a container."""

    image: str = ""
    command: tuple[str, ...] = ()
    name: str = ""
    detach: bool = False
    remove: bool = False
    interactive: bool = False
    tty: bool = False
    attach: tuple[str, ...] = ()
    sig_proxy: bool = True
    detach_keys: str = ""
    env: tuple[tuple[str, str | None], ...] = ()
    """(name, value); a value of None is taken from the caller's environment, and dropped when it has none."""
    env_files: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    label_files: tuple[str, ...] = ()
    entrypoint: str | None = None
    """An empty string resets the image's."""
    working_directory: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    volumes_from: tuple[str, ...] = ()
    volume_driver: str = ""
    ports: tuple[PublishedPort, ...] = ()
    expose: tuple[tuple[int, str], ...] = ()
    publish_all: bool = False
    links: tuple[Link, ...] = ()
    network: str = ""
    network_aliases: tuple[str, ...] = ()
    ip: str = ""
    mac_address: str = ""
    hostname: str = ""
    domainname: str = ""
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    add_hosts: tuple[tuple[str, str], ...] = ()
    pid_mode: str = ""
    ipc_mode: str = ""
    uts_mode: str = ""
    userns_mode: str = ""
    cgroupns_mode: str = ""
    cgroup_parent: str = ""
    memory: int | None = None
    memory_reservation: int | None = None
    memory_swap: int | None = None
    """-1 is unlimited swap."""
    memory_swappiness: int | None = None
    kernel_memory: int | None = None
    oom_kill_disable: bool = False
    oom_score_adj: int | None = None
    cpus: float | None = None
    cpu_shares: int | None = None
    cpu_period: int | None = None
    cpu_quota: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    blkio_weight: int | None = None
    pids_limit: int | None = None
    shm_size: int | None = None
    ulimits: tuple[Ulimit, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    security_options: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    read_only: bool = False
    init: bool = False
    stop_signal: str = ""
    stop_timeout: int | None = None
    restart: str = "no"
    log_driver: str = ""
    log_options: tuple[tuple[str, str], ...] = ()
    runtime: str = ""
    platform: str = ""
    pull: str = "missing"
    cid_file: str = ""
    health: Health = Health()


_UNSUPPORTED = {
    "links": "--link",
    "volumes_from": "--volumes-from",
    "volume_driver": "--volume-driver",
    "devices": "--device",
    "groups": "--group-add",
    "health": "--health-*",
    "init": "--init",
    "network_aliases": "--network-alias",
    "mac_address": "--mac-address",
    "domainname": "--domainname",
    "userns_mode": "--userns",
    "cgroupns_mode": "--cgroupns",
    "kernel_memory": "--kernel-memory",
    "log_driver": "--log-driver",
    "log_options": "--log-opt",
    "runtime": "--runtime",
    "platform": "--platform",
}
"""Field -> flag, of those that are read, since docker takes them, and do nothing here."""


def without_effect(options: ContainerOptions) -> tuple[str, ...]:
    """A sentence for each flag that was given and does nothing here."""
    default = ContainerOptions()
    given = [flag for field, flag in _UNSUPPORTED.items() if getattr(options, field) != getattr(default, field)]
    return tuple(f"{flag} is not supported yet and has no effect." for flag in given)


def size(text: str) -> int:
    """Bytes such as `512m`; -1 as it is."""
    if text == "-1":
        return -1
    match = _SIZE.fullmatch(text)
    if match is None:
        raise BadValue(f"'{text}' is not a size (such as 512m)")
    return int(float(match[1]) * 1024 ** "bkmgt".index(match[2].lower() or "b"))


def span(text: str) -> float:
    """A span as Go writes it (`1m30s`), in seconds."""
    parts = _SPAN.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise BadValue(f"'{text}' is not a span of time (such as 1m30s)")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def pair(text: str) -> tuple[str, str]:
    """`key=value`; without `=` the value is empty."""
    key, _, value = text.partition("=")
    if not key:
        raise BadValue(f"'{text}' is not key=value")
    return key, value


def variable(text: str) -> tuple[str, str | None]:
    """`NAME=value`, or `NAME` to be taken from the caller."""
    name, equals, value = text.partition("=")
    if not name:
        raise BadValue(f"'{text}' is not NAME=value")
    return name, value if equals else None


def host(text: str) -> tuple[str, str]:
    """`--add-host name:address` (or `name=address`)."""
    name, sign, address = text.partition("=" if "=" in text else ":")
    if not name or not sign or not address:
        raise BadValue(f"'{text}' is not name:address")
    return name, address.strip("[]")


def link(text: str) -> Link:
    """`container:alias`, or the name for both."""
    container, _, alias = text.partition(":")
    if not container:
        raise BadValue(f"'{text}' is not container:alias")
    return Link(container, alias or container.rpartition("/")[2])


def ulimit(text: str) -> Ulimit:
    """`nofile=1024:2048`."""
    name, _, value = text.partition("=")
    soft, colon, hard = value.partition(":")
    try:
        limit = Ulimit(name, int(soft), int(hard if colon else soft))
    except ValueError:
        raise BadValue(f"'{text}' is not a limit (such as nofile=1024:2048)") from None
    if limit.hard != -1 and (limit.soft == -1 or limit.soft > limit.hard):
        raise BadValue(f"The soft limit of '{text}' is above the hard one")
    return limit


def _port_range(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    try:
        low, high = int(first), int(last if dash else first)
    except ValueError:
        raise BadValue(f"'{text}' is not a port or a range of ports") from None
    if not 0 < low <= high <= PORT_LIMIT:
        raise BadValue(f"'{text}' is not a port between 1 and {PORT_LIMIT}, or a range of them")
    return low, high


def _protocol(text: str) -> tuple[str, str]:
    rest, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in ("tcp", "udp", "sctp"):
        raise BadValue(f"'{protocol}' is not one of tcp, udp, sctp")
    return rest, protocol


def published(text: str) -> tuple[PublishedPort, ...]:
    """`[[ip:][host port or range]:]port or range[/protocol]`."""
    rest, protocol = _protocol(text)
    if rest.startswith("["):
        address, _, rest = rest[1:].partition("]")
        rest = rest.removeprefix(":")
    else:
        address = ""
        if rest.count(":") == 2:
            address, _, rest = rest.partition(":")
    outer, colon, inner = rest.rpartition(":")
    low, high = _port_range(inner)
    if not colon or not outer:
        return tuple(PublishedPort(port, protocol, address) for port in range(low, high + 1))
    outer_low, outer_high = _port_range(outer)
    if outer_high - outer_low != high - low:
        raise BadValue(f"The two ranges of '{text}' differ in length")
    return tuple(PublishedPort(low + step, protocol, address, outer_low + step) for step in range(high - low + 1))


def exposed(text: str) -> tuple[tuple[int, str], ...]:
    """`--expose 80/tcp` or a range."""
    rest, protocol = _protocol(text)
    low, high = _port_range(rest)
    return tuple((port, protocol) for port in range(low, high + 1))


def volume(text: str) -> Mount:
    """`-v [source:]target[:options]`; a source with a slash first is a path of the host."""
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise BadValue(f"'{text}' is not [source:]target[:options]")
    if len(parts) == 1:
        source, target, flags = "", parts[0], ""
    elif len(parts) == 2:
        source, target, flags = parts[0], parts[1], ""
    else:
        source, target, flags = parts
    if not target.startswith("/"):
        raise BadValue(f"'{target}' in '{text}' is not an absolute path")
    options = tuple(flag for flag in flags.split(",") if flag and flag != "rw")
    kind = "bind" if source.startswith(("/", ".", "~")) else "volume"
    rest = tuple(flag for flag in options if flag != "ro")
    return Mount(target, source, kind, "ro" in options, rest, make=kind == "bind")


def mount(text: str) -> Mount:
    """`--mount type=bind,source=/a,target=/b,readonly`."""
    found = dict(part.partition("=")[::2] for part in text.split(","))
    target = found.get("target") or found.get("dst") or found.get("destination") or ""
    source = found.get("source") or found.get("src") or ""
    kind = found.get("type", "volume")
    if not target.startswith("/") or kind not in ("bind", "volume", "tmpfs"):
        raise BadValue(f"'{text}' is not type=bind|volume|tmpfs,source=...,target=/path")
    if kind == "bind" and not source.startswith("/"):
        raise BadValue(f"The bind mount '{text}' needs an absolute source")
    names = ("tmpfs-size", "tmpfs-mode", "bind-propagation", "volume-opt")
    options = tuple(f"{name}={found[name]}" for name in names if name in found)
    flag = found.get("readonly", found.get("ro", "false"))
    return Mount(target, source, kind, flag in ("", "true", "1"), options)


def tmpfs(text: str) -> Mount:
    """`--tmpfs /path[:options]`."""
    target, _, flags = text.partition(":")
    if not target.startswith("/"):
        raise BadValue(f"'{target}' is not an absolute path")
    return Mount(target, "", "tmpfs", False, tuple(flag for flag in flags.split(",") if flag))


def restart_policy(text: str) -> str:
    """no, always, unless-stopped or on-failure[:times]."""
    name, colon, times = text.partition(":")
    allowed = name in ("no", "always", "unless-stopped", "on-failure")
    if not allowed or (colon and (name != "on-failure" or not times.isdigit())):
        raise BadValue(f"'{text}' is not a restart policy (no, always, unless-stopped, on-failure[:times])")
    return text


def capability(text: str) -> str:
    """`--cap-add NET_ADMIN`, with or without CAP_, in any case; or ALL."""
    name = text.upper().removeprefix("CAP_")
    if name != "ALL" and f"CAP_{name}" not in ALL_CAPABILITIES:
        raise BadValue(f'invalid capability: "{text}"')
    return text


def address(text: str) -> str:
    """`--ip 10.89.0.5`: an IPv4 address."""
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise BadValue(f"'{text}' is not an IPv4 address") from None
