"""A container's record as the Docker API shows it. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from agent.containers.records import Record
from agent.units.errors import BadValue

ZERO_TIME = "0001-01-01T00:00:00Z"
_SPANS = ((31_536_000, "years"), (2_592_000, "months"), (604_800, "weeks"), (86_400, "days"), (3_600, "hours"))


def summary(record: Record) -> dict[str, Any]:
    """One of `containers/json`."""
    return {
        "Id": record.id,
        "Names": [f"/{record.name}"],
        "Image": record.options.image,
        "ImageID": record.image,
        "Command": " ".join(record.args),
        "Created": int(record.created),
        "State": record.state,
        "Status": status(record, time.time()),
        "Labels": dict(record.options.labels),
        "Ports": [
            {
                "IP": port.host_ip or "0.0.0.0",
                "PrivatePort": port.container_port,
                "PublicPort": port.host_port,
                "Type": port.protocol,
            }
            for port in (record.ports if record.state == "running" else ())
        ],
        "HostConfig": {"NetworkMode": record.options.network or "default"},
        "NetworkSettings": {"Networks": _networks(record)},
        "Mounts": _mounts(record),
    }


def details(record: Record) -> dict[str, Any]:
    """The answer of an inspect."""
    options = record.options
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in record.ports or options.ports:
        place = {"HostIp": port.host_ip, "HostPort": str(port.host_port or "")}
        bindings.setdefault(f"{port.container_port}/{port.protocol}", []).append(place)
    running = record.state == "running"
    return {
        "Id": record.id,
        "Name": f"/{record.name}",
        "Created": stamp(record.created),
        "Path": record.args[0],
        "Args": list(record.args[1:]),
        "Image": record.image,
        "RestartCount": 0,
        "Driver": "overlay2",
        "Platform": "linux",
        "State": {
            "Status": record.state,
            "Running": running,
            "Paused": False,
            "Restarting": False,
            "OOMKilled": record.oom_killed,
            "Dead": False,
            "Pid": record.pid,
            "ExitCode": record.code,
            "Error": record.error,
            "StartedAt": stamp(record.started),
            "FinishedAt": stamp(record.finished),
        },
        "Config": {
            "Hostname": options.hostname or record.id[:12],
            "User": record.user,
            "Tty": options.tty,
            "OpenStdin": options.interactive,
            "AttachStdin": options.interactive,
            "AttachStdout": True,
            "AttachStderr": True,
            "Env": list(record.env),
            "Cmd": list(options.command) or None,
            "Image": options.image,
            "WorkingDir": record.directory,
            "Entrypoint": [options.entrypoint] if options.entrypoint else None,
            "Labels": dict(options.labels),
            "StopSignal": record.stop_signal,
            "ExposedPorts": {text: {} for text in record.exposed},
        },
        "HostConfig": {
            "NetworkMode": options.network or "default",
            "PortBindings": bindings,
            "AutoRemove": options.remove,
            "Privileged": options.privileged,
            "ReadonlyRootfs": options.read_only,
            "Memory": options.memory or 0,
            "NanoCpus": int((options.cpus or 0) * 1e9),
            "CpuShares": options.cpu_shares or 0,
            "CapAdd": list(options.cap_add) or None,
            "CapDrop": list(options.cap_drop) or None,
            "LogConfig": {"Type": "json-file", "Config": {}},
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        },
        "NetworkSettings": {
            "IPAddress": record.address if running else "",
            "Ports": bindings if running else {},
            "Networks": _networks(record),
        },
        "Mounts": _mounts(record),
    }


def matches(record: Record, filters: Mapping[str, Any]) -> bool:
    """Whether a record passes the filters of a list: those of one kind widen, kinds narrow."""
    labels = dict(record.options.labels)

    def label(text: str) -> bool:
        name, equals, value = text.partition("=")
        return name in labels and (not equals or labels[name] == value)

    checks = {
        "id": lambda text: record.id.startswith(text),
        "name": lambda text: text.removeprefix("/") in record.name,
        "status": lambda text: record.state == text,
        "exited": lambda text: record.state == "exited" and str(record.code) == text,
        "ancestor": lambda text: (
            text in (record.options.image, record.image) or f"{text}:latest" == record.options.image
        ),
        "label": label,
    }
    for kind, values in filters.items():
        if kind not in checks:
            raise BadValue(f"invalid filter '{kind}'")
        decide = all if kind == "label" else any
        if not decide(checks[kind](text) for text in values):
            return False
    return True


def status(record: Record, now: float) -> str:
    """`Up 3 minutes`, `Exited (0) 2 hours ago`, `Created`."""
    if record.state == "running":
        return f"Up {span(now - record.started)}"
    return f"Exited ({record.code}) {span(now - record.finished)} ago" if record.state == "exited" else "Created"


def span(seconds: float) -> str:
    """A length of time as docker says it."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    if whole < 3600:
        return "About a minute" if whole < 120 else f"{whole // 60} minutes"
    if whole < 7200:
        return "About an hour"
    for size, name in _SPANS:
        if whole >= 2 * size:
            return f"{whole // size} {name}"
    return f"{whole // 3600} hours"


def stamp(seconds: float) -> str:
    """RFC 3339, or Docker's zero."""
    if not seconds:
        return ZERO_TIME
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _networks(record: Record) -> dict[str, Any]:
    return {"bridge": {"IPAddress": record.address}} if record.address and record.state == "running" else {}


def _mounts(record: Record) -> list[dict[str, Any]]:
    return [
        {
            "Type": "bind" if item.source.startswith("/") else item.kind,
            "Source": item.source,
            "Destination": item.target,
            "RW": not item.read_only,
            "Mode": "",
        }
        for item in record.options.mounts
    ]
