"""A container's record -> the OCI runtime spec, with Docker's defaults. It touches nothing.

Source: the OCI runtime specification, config.md and config-linux.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.cgroups import CPU_PERIOD_US
from agent.containers import security
from agent.containers.records import Record
from agent.units.capabilities import ALL_CAPABILITIES

SHM_BYTES = 64 << 20
CGROUP_PARENT = "fleet-containers"
_DEVICES = ((1, 3), (1, 8), (1, 7), (5, 0), (1, 5), (1, 9), (5, 1), (10, 200))
"""null, random, full, tty, zero, urandom, console, tun."""


@dataclass(frozen=True)
class User:
    """Who a container's first process is."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def build(
    record: Record,
    root: Path,
    place: Path,
    user: User,
    binds: Sequence[tuple[str, str, bool]],
    *,
    swap: bool = False,
    every: Sequence[str] = ALL_CAPABILITIES,
    network: str = "",
) -> dict[str, Any]:
    """The spec; `binds` are (host path, target, read only), `place` holds the files for /etc. With `swap` (the kernel
    counts it) a memory limit allows as much swap again, as Docker has it; `every` are all capabilities of this host;
    `network` is the path of a network namespace that is there already."""
    options = record.options
    granted = security.capabilities(options.cap_add, options.cap_drop, privileged=options.privileged, every=every)
    sets = dict.fromkeys(("bounding", "effective", "permitted"), granted)
    if user.uid != 0:
        sets = {"bounding": granted, "effective": [], "permitted": []}
    process: dict[str, Any] = {
        "terminal": options.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)},
        "args": list(record.args),
        "env": list(record.env),
        "cwd": record.directory or "/",
        "capabilities": sets,
        "noNewPrivileges": any(item.startswith("no-new-privileges") for item in options.security_options),
        "rlimits": [
            {"type": f"RLIMIT_{item.name.upper()}", "soft": item.soft, "hard": item.hard} for item in options.ulimits
        ],
    }
    if options.oom_score_adj is not None:
        process["oomScoreAdj"] = options.oom_score_adj
    linux: dict[str, Any] = {
        "namespaces": _namespaces(record, network),
        "resources": _resources(record, swap),
        "cgroupsPath": cgroup(record),
        "sysctl": dict(options.sysctls),
    }
    if not options.privileged:
        linux |= {"maskedPaths": security.MASKED, "readonlyPaths": security.READ_ONLY}
        if (calls := security.seccomp(options.security_options, granted)) is not None:
            linux["seccomp"] = calls
    spec = {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": str(root), "readonly": options.read_only},
        "mounts": _mounts(record, place, binds),
        "linux": linux,
    }
    if options.uts_mode != "host":
        spec["hostname"] = options.hostname or record.id[:12]
    return spec


def cgroup(record: Record) -> str:
    """The control group of a container, as the spec names it."""
    parent = record.cgroup_parent or record.options.cgroup_parent or CGROUP_PARENT
    return f"/{parent.strip('/')}/{record.id}"


def _namespaces(record: Record, network: str) -> list[dict[str, str]]:
    options = record.options
    kinds = ["mount"]
    for kind, given in (("pid", options.pid_mode), ("ipc", options.ipc_mode), ("uts", options.uts_mode)):
        if given != "host":
            kinds.append(kind)
    found = [{"type": kind} for kind in kinds]
    if options.network != "host":
        found.append({"type": "network", "path": network} if network else {"type": "network"})
    return found


def _resources(record: Record, swap: bool) -> dict[str, Any]:
    options = record.options
    if options.privileged:
        devices = [{"allow": True, "access": "rwm"}]
    else:
        devices = [{"allow": False, "access": "rwm"}]
        devices += [{"allow": True, "type": kind, "access": "m"} for kind in "cb"]
        devices += [
            {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"} for major, minor in _DEVICES
        ]
        devices.append({"allow": True, "type": "c", "major": 136, "access": "rwm"})
    memory: dict[str, Any] = {
        "limit": options.memory,
        "reservation": options.memory_reservation,
        "swap": options.memory_swap or (2 * options.memory if swap and options.memory else None),
        "swappiness": options.memory_swappiness,
        "disableOOMKiller": options.oom_kill_disable or None,
    }
    period, quota = options.cpu_period, options.cpu_quota
    if options.cpus:
        period, quota = CPU_PERIOD_US, int(options.cpus * CPU_PERIOD_US)
    cpu: dict[str, Any] = {
        "shares": options.cpu_shares,
        "period": period,
        "quota": quota,
        "cpus": options.cpuset_cpus or None,
        "mems": options.cpuset_mems or None,
    }
    found: dict[str, Any] = {"devices": devices}
    for name, values in (("memory", memory), ("cpu", cpu)):
        if kept := {key: value for key, value in values.items() if value is not None}:
            found[name] = kept
    if options.pids_limit:
        found["pids"] = {"limit": options.pids_limit}
    if options.blkio_weight:
        found["blockIO"] = {"weight": options.blkio_weight}
    return found


def _mounts(record: Record, place: Path, binds: Sequence[tuple[str, str, bool]]) -> list[dict[str, Any]]:
    options = record.options
    read = [] if options.privileged else ["ro"]
    tight = ["nosuid", "noexec", "nodev"]
    mounts = [
        _mount("/proc", "proc", "proc", tight),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount(
            "/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
        ),
        _mount("/sys", "sysfs", "sysfs", [*tight, *read]),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", [*tight, *read]),
        _mount("/dev/mqueue", "mqueue", "mqueue", tight),
        _mount("/dev/shm", "tmpfs", "shm", [*tight, "mode=1777", f"size={options.shm_size or SHM_BYTES}"]),
    ]
    for name in ("hosts", "hostname", "resolv.conf"):
        mounts.append(_bind(str(place / name), f"/etc/{name}", read_only=False))
    for item in options.mounts:
        if item.kind == "tmpfs":
            mounts.append(_mount(item.target, "tmpfs", "tmpfs", [*tight, *(item.options or ("rw",))]))
    mounts += [_bind(source, target, read_only=only) for source, target, only in binds]
    return sorted(mounts, key=lambda item: str(item["destination"]).count("/"))


def _mount(target: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source, "options": options}


def _bind(source: str, target: str, *, read_only: bool) -> dict[str, Any]:
    return _mount(target, "bind", source, ["rbind", "rprivate", "ro" if read_only else "rw"])
