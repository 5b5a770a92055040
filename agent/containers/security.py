"""What a container may do by default: capabilities, paths it can't see or write, devices, system calls. Plain data.

The system call list is the one that the machine's container packages ship; none is made up here.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from agent.units.capabilities import ALL_CAPABILITIES

SECCOMP_PATHS = (Path("/etc/containers/seccomp.json"), Path("/usr/share/containers/seccomp.json"))
_DEFAULT = (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL"
    " AUDIT_WRITE"
)
DEFAULT_CAPABILITIES = tuple(f"CAP_{name}" for name in _DEFAULT.split())
MASKED = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
# Without x32, which Debian's kernels keep off: a third list would take each start 6 ms more.
_ARCHITECTURES = {
    "x86_64": ("amd64", ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]),
    "aarch64": ("arm64", ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
}


class SecurityError(Exception):
    """A security option can't be met; the text says which."""


def own_capabilities(status: str | None = None) -> tuple[str, ...]:
    """Those that this process (or the text of a /proc/<pid>/status) may hand on: a kernel may know fewer than we do,
    and a host that is itself a container has fewer."""
    text = Path("/proc/self/status").read_text() if status is None else status
    bits = next((int(line.split()[1], 16) for line in text.splitlines() if line.startswith("CapBnd:")), 0)
    return tuple(name for number, name in enumerate(ALL_CAPABILITIES) if bits >> number & 1)


def capabilities(add: Iterable[str], drop: Iterable[str], *, privileged: bool, every: Sequence[str]) -> list[str]:
    """The capabilities of a container, given `--cap-add` and `--cap-drop`; `every` is what "all" means here."""
    if privileged:
        return list(every)
    added, dropped = [_name(item) for item in add], [_name(item) for item in drop]
    base = tuple(every) if "CAP_ALL" in added else () if "CAP_ALL" in dropped else DEFAULT_CAPABILITIES
    result = [item for item in base if item not in dropped]
    result += [item for item in added if item != "CAP_ALL" and item not in result]
    return result


def seccomp(options: Iterable[str], granted: Iterable[str]) -> dict[str, Any] | None:
    """The system call filter as OCI has it. None with `seccomp=unconfined`, or when this machine has no list (then
    `missing` says so)."""
    path: Path | None = next((path for path in SECCOMP_PATHS if path.is_file()), None)
    for option in options:
        name, _, value = option.replace(":", "=", 1).partition("=")
        if name == "seccomp":
            if value == "unconfined":
                return None
            path = Path(value)
    if path is None:
        return None
    try:
        profile = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SecurityError(f"The seccomp profile {path} can't be read: {error}.") from error
    return _flatten(profile, set(granted))


def missing() -> str:
    """A sentence when this machine has no system call list, else nothing."""
    if any(path.is_file() for path in SECCOMP_PATHS):
        return ""
    return f"Containers run without a system call filter: none of {', '.join(map(str, SECCOMP_PATHS))} is here."


def _flatten(profile: dict[str, Any], granted: set[str]) -> dict[str, Any]:
    """Docker's form, with conditions on capabilities and architectures, as OCI's."""
    name, architectures = _ARCHITECTURES.get(platform.machine(), ("", []))
    calls = []
    for rule in profile.get("syscalls", ()):
        only, never = rule.get("includes") or {}, rule.get("excludes") or {}
        if not set(only.get("caps", ())) <= granted or set(never.get("caps", ())) & granted:
            continue
        if (only.get("arches") and name not in only["arches"]) or name in never.get("arches", ()):
            continue
        kept = {"names": rule.get("names") or [rule["name"]], "action": rule["action"]}
        if rule.get("args"):
            kept["args"] = [
                {key: item[key] for key in ("index", "value", "valueTwo", "op") if key in item} for item in rule["args"]
            ]
        if rule.get("errnoRet") is not None:
            kept["errnoRet"] = rule["errnoRet"]
        calls.append(kept)
    result = {"defaultAction": profile["defaultAction"], "architectures": architectures, "syscalls": calls}
    if profile.get("defaultErrnoRet") is not None:
        result["defaultErrnoRet"] = profile["defaultErrnoRet"]
    return result


def _name(text: str) -> str:
    name = text.upper()
    name = name if name.startswith("CAP_") else f"CAP_{name}"
    if name != "CAP_ALL" and name not in ALL_CAPABILITIES:
        raise SecurityError(f'invalid capability: "{text}"')
    return name
