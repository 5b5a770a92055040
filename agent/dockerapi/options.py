"""A container as the API's JSON wishes it -> ContainerOptions. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.units.docker_line import ContainerOptions, Mount, PublishedPort, Ulimit
from agent.units.docker_options import volume

NANO = 1e9


def options_of(body: Mapping[str, Any], name: str) -> ContainerOptions:
    """Read the body of `containers/create`."""
    host: Mapping[str, Any] = body.get("HostConfig") or {}
    entrypoint = body.get("Entrypoint")
    command = tuple(body.get("Cmd") or ())
    if isinstance(entrypoint, str):
        entrypoint = [entrypoint]
    first: str | None = None
    if entrypoint is not None:
        first, command = (entrypoint[0] if entrypoint else ""), (*entrypoint[1:], *command)
    mounts = [volume(text) for text in host.get("Binds") or ()]
    mounts += [Mount(target) for target in body.get("Volumes") or () if all(item.target != target for item in mounts)]
    for item in host.get("Mounts") or ():
        kind = item["Type"]
        mounts.append(Mount(item["Target"], item.get("Source", ""), kind, bool(item.get("ReadOnly"))))
    for target, text in (host.get("Tmpfs") or {}).items():
        mounts.append(Mount(target, kind="tmpfs", options=tuple(part for part in text.split(",") if part)))
    return ContainerOptions(
        image=body["Image"],
        command=command,
        name=name,
        detach=True,
        remove=bool(host.get("AutoRemove")),
        interactive=bool(body.get("OpenStdin")),
        tty=bool(body.get("Tty")),
        env=tuple(_pair(item) for item in body.get("Env") or () if "=" in item),
        labels=tuple((body.get("Labels") or {}).items()),
        entrypoint=first,
        working_directory=body.get("WorkingDir") or "",
        user=body.get("User") or "",
        mounts=tuple(mounts),
        ports=_ports(host.get("PortBindings") or {}),
        expose=tuple(_port(text) for text in body.get("ExposedPorts") or ()),
        publish_all=bool(host.get("PublishAllPorts")),
        network=host.get("NetworkMode") or "",
        hostname=body.get("Hostname") or "",
        dns=tuple(host.get("Dns") or ()),
        dns_search=tuple(host.get("DnsSearch") or ()),
        dns_options=tuple(host.get("DnsOptions") or ()),
        add_hosts=tuple((text.partition(":")[0], text.partition(":")[2]) for text in host.get("ExtraHosts") or ()),
        pid_mode=host.get("PidMode") or "",
        ipc_mode=host.get("IpcMode") or "",
        uts_mode=host.get("UTSMode") or "",
        cgroup_parent=host.get("CgroupParent") or "",
        memory=host.get("Memory") or None,
        memory_reservation=host.get("MemoryReservation") or None,
        memory_swap=host.get("MemorySwap") or None,
        cpus=(host.get("NanoCpus") or 0) / NANO or None,
        cpu_shares=host.get("CpuShares") or None,
        cpu_period=host.get("CpuPeriod") or None,
        cpu_quota=host.get("CpuQuota") or None,
        cpuset_cpus=host.get("CpusetCpus") or "",
        cpuset_mems=host.get("CpusetMems") or "",
        blkio_weight=host.get("BlkioWeight") or None,
        pids_limit=host.get("PidsLimit") or None,
        oom_score_adj=host.get("OomScoreAdj") or None,
        shm_size=host.get("ShmSize") or None,
        ulimits=tuple(Ulimit(item["Name"], item["Soft"], item["Hard"]) for item in host.get("Ulimits") or ()),
        cap_add=tuple(host.get("CapAdd") or ()),
        cap_drop=tuple(host.get("CapDrop") or ()),
        privileged=bool(host.get("Privileged")),
        security_options=tuple(host.get("SecurityOpt") or ()),
        sysctls=tuple((host.get("Sysctls") or {}).items()),
        read_only=bool(host.get("ReadonlyRootfs")),
        stop_signal=body.get("StopSignal") or "",
        stop_timeout=body.get("StopTimeout"),
    )


def _pair(text: str) -> tuple[str, str | None]:
    name, _, value = text.partition("=")
    return name, value


def _port(text: str) -> tuple[int, str]:
    number, _, kind = text.partition("/")
    return int(number), kind or "tcp"


def _ports(bindings: Mapping[str, Any]) -> tuple[PublishedPort, ...]:
    found = []
    for text, places in bindings.items():
        number, kind = _port(text)
        for place in places or [{}]:
            found.append(PublishedPort(number, kind, place.get("HostIp") or "", int(place.get("HostPort") or 0)))
    return tuple(found)
