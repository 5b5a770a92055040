"""The kernel's control groups: groups of ours, in all hierarchies of this host at once, and what limits them.

What a limit means in files is a pure function (`writes`), the same for v1, hybrid and v2. It knows no units; a group is
a relative name below one root, `/fleet` unless told otherwise. Which hierarchies there are is told by `hierarchies`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from agent.hierarchies import DEFAULT_ROOT, Hierarchy, Layout, detect

CPU_PERIOD_US = 100_000
KILL_ROUNDS = 200
KILL_PAUSE_S = 0.01
REMOVE_ROUNDS = 100


class CgroupError(Exception):
    """A group could not be made, limited, emptied or removed; the text says which and why."""


@dataclass(frozen=True)
class Limits:
    """What a group may use; None leaves the kernel's default."""

    memory_max: int | None = None
    """Bytes."""
    memory_low: int | None = None
    """Bytes that are reclaimed last."""
    swap_max: int | None = None
    """Bytes of swap on top of memory (as v2 counts)."""
    cpus: float | None = None
    """Processors' worth of time: 1.5 is one and a half."""
    cpu_shares: int | None = None
    """Relative weight in v1's and Docker's scale (2 to 262144, default 1024)."""
    pids_max: int | None = None
    cpuset: str | None = None
    """Processors as the kernel lists them, `0-1,3`."""


@dataclass(frozen=True)
class Write:
    """One value into one file of a group, in the hierarchy of `controller`."""

    controller: str
    file: str
    value: str
    optional: bool = False
    """The file may be missing on this kernel (no swap accounting): then nothing happens."""


def writes(layout: Layout, limits: Limits) -> tuple[Write, ...]:
    """Return what to write for `limits` on a host like this, in order. A controller that is missing is left out."""
    out: list[Write] = []

    def put(controller: str, v1: Iterable[Write], v2: Iterable[Write]) -> None:
        hierarchy = layout.of(controller)
        if hierarchy is not None:
            out.extend(v1 if hierarchy.version == 1 else v2)

    if limits.memory_max is not None:
        put(
            "memory",
            (Write("memory", "memory.limit_in_bytes", str(limits.memory_max)),),
            (Write("memory", "memory.max", str(limits.memory_max)),),
        )
    if limits.memory_low is not None:
        put(
            "memory",
            (Write("memory", "memory.soft_limit_in_bytes", str(limits.memory_low)),),
            (Write("memory", "memory.low", str(limits.memory_low)),),
        )
    if limits.swap_max is not None:
        both = limits.swap_max + (limits.memory_max or 0)
        v1 = (Write("memory", "memory.memsw.limit_in_bytes", str(both), optional=True),) if limits.memory_max else ()
        put("memory", v1, (Write("memory", "memory.swap.max", str(limits.swap_max), optional=True),))
    if limits.cpus is not None:
        quota = max(1000, round(limits.cpus * CPU_PERIOD_US))
        put(
            "cpu",
            (
                Write("cpu", "cpu.cfs_period_us", str(CPU_PERIOD_US)),
                Write("cpu", "cpu.cfs_quota_us", str(quota)),
            ),
            (Write("cpu", "cpu.max", f"{quota} {CPU_PERIOD_US}"),),
        )
    if limits.cpu_shares is not None:
        put(
            "cpu",
            (Write("cpu", "cpu.shares", str(limits.cpu_shares)),),
            (Write("cpu", "cpu.weight", str(weight_of_shares(limits.cpu_shares))),),
        )
    if limits.pids_max is not None:
        one = (Write("pids", "pids.max", str(limits.pids_max)),)
        put("pids", one, one)
    if limits.cpuset is not None:
        one = (Write("cpuset", "cpuset.cpus", limits.cpuset),)
        put("cpuset", one, one)
    return tuple(out)


def counts_swap(layout: Layout) -> bool:
    """Tell whether the kernel limits swap by group."""
    hierarchy = layout.of("memory")
    if hierarchy is None:
        return False
    if hierarchy.version == 1:
        return (hierarchy.mount / "memory.memsw.limit_in_bytes").exists()
    return any(hierarchy.mount.glob("*/memory.swap.max"))


def weight_of_shares(shares: int) -> int:
    """Map v1's cpu.shares (2 to 262144) to v2's cpu.weight (1 to 10000), as OCI runtimes do."""
    return 1 + ((min(max(shares, 2), 262_144) - 2) * 9999) // 262_142


class Cgroup:
    """One group, the same relative name in every hierarchy."""

    def __init__(self, name: str, *, layout: Layout | None = None, root: str = DEFAULT_ROOT) -> None:
        """`name` is relative to `root`; `root` to the mounts (`own_root` gives this process's)."""
        parts = name.split("/")
        if not name or any(part in ("", ".", "..") for part in parts):
            raise CgroupError(f"{name!r} can't name a control group")
        self.name = name
        self.layout = layout or detect()
        self.root = root.strip("/")

    @classmethod
    def create(
        cls, name: str, limits: Limits | None = None, *, layout: Layout | None = None, root: str = DEFAULT_ROOT
    ) -> Cgroup:
        """Make the group everywhere (again is no error) and limit it."""
        group = cls(name, layout=layout, root=root)
        group.make()
        if limits is not None:
            group.limit(limits)
        return group

    @property
    def oci_path(self) -> str:
        """The group as an OCI spec's `linux.cgroupsPath` names it."""
        return "/" + "/".join(part for part in (self.root, self.name) if part)

    def paths(self) -> tuple[Path, ...]:
        """Return its directory in every hierarchy."""
        return tuple(self._at(one) for one in self.layout.hierarchies)

    def child(self, name: str) -> Cgroup:
        """Return the group `name` below this one; it is not made."""
        return Cgroup(f"{self.name}/{name}", layout=self.layout, root=self.root)

    def at(self, oci_path: str) -> Cgroup:
        """Return the group that an OCI spec names so; it is not made."""
        return Cgroup(oci_path.strip("/"), layout=self.layout, root="")

    def make(self) -> None:
        """Make its directories, and hand controllers down the unified tree."""
        for hierarchy in self.layout.hierarchies:
            at = hierarchy.mount
            for part in self.oci_path.strip("/").split("/"):
                if hierarchy.version == 2:
                    _delegate(at)
                at = at / part
                try:
                    at.mkdir(exist_ok=True)
                except OSError as error:
                    raise CgroupError(f"the control group {at} can't be made: {error.strerror}") from error
                if "cpuset" in hierarchy.controllers and hierarchy.version == 1:
                    _inherit_cpuset(at)

    def limit(self, limits: Limits) -> None:
        """Apply limits; CgroupError names the file and the value that the kernel refused."""
        for write in writes(self.layout, limits):
            hierarchy = self.layout.of(write.controller)
            if hierarchy is None:
                continue
            path = self._at(hierarchy) / write.file
            try:
                path.write_text(write.value)
            except OSError as error:
                if write.optional and error.errno in (errno.ENOENT, errno.EACCES, errno.EPERM):
                    continue
                raise CgroupError(f"{path} refuses {write.value!r}: {error.strerror}") from error

    def join(self, pid: int = 0) -> None:
        """Move a process (0: this one) into the group."""
        for path in self.paths():
            try:
                (path / "cgroup.procs").write_text(str(pid))
            except OSError as error:
                raise CgroupError(f"process {pid or os.getpid()} can't join {path}: {error.strerror}") from error

    def procs(self) -> frozenset[int]:
        """Return the pids in the group and below it."""
        found: set[int] = set()
        for path in self.paths():
            for directory, _, _ in os.walk(path):
                with contextlib.suppress(OSError):
                    found.update(int(pid) for pid in (Path(directory) / "cgroup.procs").read_text().split())
        return frozenset(found)

    def signal(self, sig: int) -> int:
        """Send a signal to every process once; returns how many there were."""
        pids = self.procs()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sig)
        return len(pids)

    def kill(self) -> None:
        """End everything in the group and below: cgroup.kill where it is, else freeze, SIGKILL and thaw, until empty.

        Blocks for at most about two seconds; CgroupError names what would not die.
        """
        for path in self.paths():
            with contextlib.suppress(OSError):
                _write_existing(path / "cgroup.kill", "1")
        freezer = self.layout.of("freezer")
        frozen = self._at(freezer) / "freezer.state" if freezer is not None and freezer.version == 1 else None
        for attempt in range(KILL_ROUNDS):
            if not self.procs():
                return
            if frozen is not None and attempt == 0:
                with contextlib.suppress(OSError):
                    _write_existing(frozen, "FROZEN")
            self.signal(signal.SIGKILL)
            if frozen is not None:
                with contextlib.suppress(OSError):
                    _write_existing(frozen, "THAWED")
            time.sleep(KILL_PAUSE_S)
        raise CgroupError(f"processes {sorted(self.procs())} in {self.oci_path} survive SIGKILL")

    def remove(self) -> None:
        """Remove its directories with those below. They must be empty; a group that is gone is no error."""
        for path in self.paths():
            for attempt in range(REMOVE_ROUNDS):
                try:
                    for directory, _, _ in os.walk(path, topdown=False):
                        with contextlib.suppress(FileNotFoundError):
                            Path(directory).rmdir()
                    break
                except OSError as error:
                    if error.errno != errno.EBUSY or attempt == REMOVE_ROUNDS - 1:
                        raise CgroupError(f"the control group {path} can't be removed: {error.strerror}") from error
                    time.sleep(KILL_PAUSE_S)

    def exists(self) -> bool:
        """Tell whether it is there in any hierarchy."""
        return any(path.is_dir() for path in self.paths())

    def oom_kills(self) -> int:
        """Return how many processes the kernel killed here for want of memory."""
        hierarchy = self.layout.of("memory")
        if hierarchy is None:
            return 0
        name = "memory.oom_control" if hierarchy.version == 1 else "memory.events"
        total = 0
        for directory, _, _ in os.walk(self._at(hierarchy)):
            with contextlib.suppress(OSError):
                text = (Path(directory) / name).read_text()
                total = max(total, *(int(count) for count in re.findall(r"^oom_kill (\d+)$", text, re.MULTILINE)), 0)
        return total

    def _at(self, hierarchy: Hierarchy) -> Path:
        return hierarchy.mount / self.oci_path.strip("/")


def _write_existing(path: Path, text: str) -> None:
    """Write a control file without ever making one."""
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)


def _delegate(directory: Path) -> None:
    """Let children of a unified group have its controllers; the kernel refuses it to groups that hold processes."""
    with contextlib.suppress(OSError):
        have = set((directory / "cgroup.controllers").read_text().split())
        given = set((directory / "cgroup.subtree_control").read_text().split())
        for name in sorted(have - given):
            with contextlib.suppress(OSError):
                _write_existing(directory / "cgroup.subtree_control", f"+{name}")


def _inherit_cpuset(directory: Path) -> None:
    """A v1 cpuset is empty at first, and nothing may join it until it has processors and memory nodes."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        with contextlib.suppress(OSError):
            if not (directory / name).read_text().strip():
                _write_existing(directory / name, (directory.parent / name).read_text().strip())
