"""ContainerOptions -> the JSON that the Docker API makes a container of, and what of it only the caller knows: its
environment, its files, its working directory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agent.units.docker_line import DockerLineError
from agent.units.docker_options import ContainerOptions, Mount

NANO = 1_000_000_000


def create_body(options: ContainerOptions, streams: Iterable[str]) -> dict[str, Any]:
    """The body of `containers/create`; `streams` are those that the caller attaches. DockerLineError for a file that
    can't be read."""
    attached = set(streams)
    ports: dict[str, list[dict[str, str]]] = {}
    for port in options.ports:
        place = {"HostIp": port.host_ip, "HostPort": str(port.host_port or "")}
        ports.setdefault(f"{port.container_port}/{port.protocol}", []).append(place)
    exposed = [*ports, *(f"{number}/{kind}" for number, kind in options.expose)]
    body: dict[str, Any] = {
        "Image": options.image,
        "Cmd": list(options.command) or None,
        "Hostname": options.hostname,
        "Domainname": options.domainname,
        "MacAddress": options.mac_address,
        "User": options.user,
        "WorkingDir": options.working_directory,
        "Tty": options.tty,
        "OpenStdin": options.interactive,
        "StdinOnce": options.interactive and not options.detach,
        "AttachStdin": "stdin" in attached,
        "AttachStdout": "stdout" in attached,
        "AttachStderr": "stderr" in attached,
        "Env": environment(options),
        "Labels": labels(options),
        "ExposedPorts": {text: {} for text in exposed},
        "Volumes": {item.target: {} for item in options.mounts if not item.source and item.kind == "volume"},
        "StopSignal": options.stop_signal,
        "HostConfig": _host(options, ports),
    }
    if options.entrypoint is not None:
        body["Entrypoint"] = [options.entrypoint]
    if options.ip or options.network_aliases:
        endpoint = {"IPAMConfig": {"IPv4Address": options.ip}, "Aliases": list(options.network_aliases)}
        body["NetworkingConfig"] = {"EndpointsConfig": {options.network or "default": endpoint}}
    if options.health.command is not None:
        body["Healthcheck"] = {"Test": ["CMD-SHELL", options.health.command]}
    if options.stop_timeout is not None:
        body["StopTimeout"] = options.stop_timeout
    return body


def _host(options: ContainerOptions, ports: dict[str, list[dict[str, str]]]) -> dict[str, Any]:
    restart, _, times = options.restart.partition(":")
    return {
        "Binds": [_bind(item) for item in options.mounts if item.source and (item.make or item.kind == "volume")],
        "Mounts": [
            {"Type": "bind", "Source": item.source, "Target": item.target, "ReadOnly": item.read_only}
            for item in options.mounts
            if item.kind == "bind" and not item.make
        ],
        "VolumesFrom": list(options.volumes_from),
        "VolumeDriver": options.volume_driver,
        "Devices": [{"PathOnHost": text.partition(":")[0]} for text in options.devices],
        "Tmpfs": {item.target: ",".join(item.options) for item in options.mounts if item.kind == "tmpfs"},
        "PortBindings": ports,
        "PublishAllPorts": options.publish_all,
        "AutoRemove": options.remove,
        "NetworkMode": options.network or "default",
        "Links": [f"{item.container}:{item.alias}" for item in options.links],
        "Dns": list(options.dns),
        "DnsSearch": list(options.dns_search),
        "DnsOptions": list(options.dns_options),
        "ExtraHosts": [f"{host}:{where}" for host, where in options.add_hosts],
        "PidMode": options.pid_mode,
        "IpcMode": options.ipc_mode,
        "UTSMode": options.uts_mode,
        "UsernsMode": options.userns_mode,
        "CgroupnsMode": options.cgroupns_mode,
        "CgroupParent": options.cgroup_parent,
        "Memory": options.memory or 0,
        "MemoryReservation": options.memory_reservation or 0,
        "MemorySwap": options.memory_swap or 0,
        "MemorySwappiness": options.memory_swappiness,
        "OomKillDisable": options.oom_kill_disable,
        "OomScoreAdj": options.oom_score_adj or 0,
        "NanoCpus": int((options.cpus or 0) * NANO),
        "CpuShares": options.cpu_shares or 0,
        "CpuPeriod": options.cpu_period or 0,
        "CpuQuota": options.cpu_quota or 0,
        "CpusetCpus": options.cpuset_cpus,
        "CpusetMems": options.cpuset_mems,
        "BlkioWeight": options.blkio_weight or 0,
        "PidsLimit": options.pids_limit,
        "ShmSize": options.shm_size or 0,
        "Ulimits": [{key.capitalize(): value for key, value in asdict(item).items()} for item in options.ulimits],
        "CapAdd": list(options.cap_add),
        "CapDrop": list(options.cap_drop),
        "GroupAdd": list(options.groups),
        "Privileged": options.privileged,
        "SecurityOpt": list(options.security_options),
        "Sysctls": dict(options.sysctls),
        "ReadonlyRootfs": options.read_only,
        "KernelMemory": options.kernel_memory or 0,
        "Init": options.init or None,
        "Runtime": options.runtime,
        "LogConfig": {"Type": options.log_driver, "Config": dict(options.log_options)},
        "RestartPolicy": {"Name": restart, "MaximumRetryCount": int(times or 0)},
    }


def _bind(item: Mount) -> str:
    source = item.source
    if item.kind == "bind":
        source = str(Path(source).expanduser().absolute())
    flags = [*(["ro"] if item.read_only else []), *item.options]
    return ":".join([source, item.target, *([",".join(flags)] if flags else [])])


def environment(options: ContainerOptions) -> list[str]:
    """`NAME=value`, from files first, then by flag; a bare name takes the caller's value, or none."""
    found: dict[str, str] = {}
    given = [item for path in options.env_files for item in _pairs(path)]
    for key, value in (*given, *options.env):
        text = os.environ.get(key) if value is None else value
        if text is not None:
            found[key] = text
    return [f"{key}={value}" for key, value in found.items()]


def labels(options: ContainerOptions) -> dict[str, str]:
    """From files first, then by flag."""
    given = [(key, value or "") for path in options.label_files for key, value in _pairs(path)]
    return dict([*given, *options.labels])


def _pairs(path: str) -> list[tuple[str, str | None]]:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError as error:
        raise DockerLineError(f"open {path}: {(error.strerror or str(error)).lower()}.") from error
    pairs: list[tuple[str, str | None]] = []
    for line in lines:
        text = line.lstrip()
        if text and not text.startswith("#"):
            key, equals, value = text.partition("=")
            pairs.append((key, value if equals else None))
    return pairs
