"""A container as the API's JSON wishes it -> ContainerOptions. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter, ValidationError

from agent.units.docker_options import (
    ContainerOptions,
    Health,
    Mount,
    PublishedPort,
    Ulimit,
    address,
    link,
    volume,
    without_effect,
)
from agent.units.errors import BadValue

NANO = 1e9
RUNTIMES = ("runc", "crun")
LOG_DRIVER = "json-file"
_CHECKED = TypeAdapter(ContainerOptions)


def options_of(body: Mapping[str, Any], name: str) -> ContainerOptions:
    """Read the body of `containers/create`. Raises BadValue for one that no client of Docker's would send."""
    try:
        return _CHECKED.validate_python(asdict(_options(body, name)))
    except KeyError as error:
        raise BadValue(f"the container's {error.args[0]} is missing") from error
    except ValidationError as error:
        wrong = error.errors()[0]
        place = ".".join(str(part) for part in wrong["loc"])
        raise BadValue(f"the container's {place} can't be read: {wrong['msg']}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise BadValue(f"the container's description can't be read: {error}") from error


def _options(body: Mapping[str, Any], name: str) -> ContainerOptions:
    host: Mapping[str, Any] = body.get("HostConfig") or {}
    logs: Mapping[str, Any] = host.get("LogConfig") or {}
    health = (body.get("Healthcheck") or {}).get("Test") or ()
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
        ip=_address(body),
        hostname=body.get("Hostname") or "",
        dns=tuple(host.get("Dns") or ()),
        dns_search=tuple(host.get("DnsSearch") or ()),
        dns_options=tuple(host.get("DnsOptions") or ()),
        links=tuple(link(text) for text in host.get("Links") or ()),
        network_aliases=_aliases(body),
        mac_address=body.get("MacAddress") or "",
        domainname=body.get("Domainname") or "",
        add_hosts=tuple((text.partition(":")[0], text.partition(":")[2]) for text in host.get("ExtraHosts") or ()),
        groups=tuple(host.get("GroupAdd") or ()),
        volumes_from=tuple(host.get("VolumesFrom") or ()),
        volume_driver=host.get("VolumeDriver") or "",
        devices=tuple(item["PathOnHost"] for item in host.get("Devices") or ()),
        pid_mode=host.get("PidMode") or "",
        ipc_mode=host.get("IpcMode") or "",
        uts_mode=host.get("UTSMode") or "",
        userns_mode=host.get("UsernsMode") or "",
        cgroupns_mode=host.get("CgroupnsMode") or "",
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
        kernel_memory=host.get("KernelMemory") or None,
        init=bool(host.get("Init")),
        runtime="" if host.get("Runtime") in RUNTIMES else host.get("Runtime") or "",
        restart=(host.get("RestartPolicy") or {}).get("Name") or "no",
        log_driver="" if logs.get("Type") == LOG_DRIVER else logs.get("Type") or "",
        log_options=tuple((logs.get("Config") or {}).items()),
        health=Health(command=" ".join(health)) if health else Health(),
    )


def warnings(options: ContainerOptions) -> list[str]:
    """What a client is told of a container that it wished so."""
    restart = [f"--restart={options.restart} is not supported yet and has no effect."]
    return [*without_effect(options), *(restart if options.restart != "no" else [])]


def _address(body: Mapping[str, Any]) -> str:
    """`--ip`: a container is in one network here, whatever name the client gives that."""
    for place in _endpoints(body):
        if text := (place.get("IPAMConfig") or {}).get("IPv4Address"):
            return address(text)
    return ""


def _aliases(body: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(name for place in _endpoints(body) for name in place.get("Aliases") or ())


def _endpoints(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = (body.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
    return [place for place in found.values() if place]


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
