"""The machine that figures are measured on: what it is, and how busy others keep it."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

LOOK_S = 1.0
"""How long it is looked at who uses the processors."""
QUIET_CORES = 0.1
"""What others may use of the processors while figures still are of a quiet machine."""
IDLE, WAITS = 3, 4
"""Columns of /proc/stat."""
NAMED = 3
"""Processes that are named where the machine is busy."""


@dataclass(frozen=True)
class Busy:
    """What the machine did while we looked, in cores; and the processes that used most, by name."""

    cores: float
    """Used, or taken by the machine's host."""
    waits: float
    """Idle, but for a disk's answer."""
    most: tuple[str, ...] = ()

    def __str__(self) -> str:
        told = f"others use {self.cores:.1f} of {os.cpu_count()} cores, and {self.waits:.1f} wait for disks"
        if self.cores + self.waits <= QUIET_CORES:
            return f"quiet: {told}"
        named = f" (most: {', '.join(self.most)})" if self.most else ""
        return f"BUSY, figures are worse than of a quiet machine: {told}{named}"


def about() -> dict[str, str]:
    """What the figures are measured on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(exclude,top)docs")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": (_git("rev-parse", "--short", "HEAD") or "unknown") + ("-dirty" if changed else ""),
        "cpu": f"{os.cpu_count()} x {model}",
        "kernel": platform.release(),
        "load": " ".join(f"{part:.2f}" for part in os.getloadavg()),
    }


@dataclass(frozen=True)
class Ticks:
    """CPU used so far: of all processors, by what they did (columns of /proc/stat); of processes, by pid and name."""

    processors: list[int]
    processes: dict[tuple[int, str], int]


def busy() -> Busy:
    """Look at the processors for a second. None of what we measure may run meanwhile."""
    before = _ticks()
    time.sleep(LOOK_S)
    return between(before, _ticks(), os.cpu_count() or 1)


def between(before: Ticks, after: Ticks, cores: int) -> Busy:
    """What so many cores did meanwhile."""
    spent = [now - then for now, then in zip(after.processors, before.processors, strict=True)]
    tick = cores / max(sum(spent), 1)
    used = [
        ((ticks - before.processes.get(process, 0)) * tick, process[1])
        for process, ticks in after.processes.items()
        if process[0] != os.getpid()
    ]
    most = [name for share, name in sorted(used, reverse=True)[:NAMED] if share > QUIET_CORES]
    return Busy((sum(spent) - spent[IDLE] - spent[WAITS]) * tick, spent[WAITS] * tick, tuple(most))


def _ticks() -> Ticks:
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, rest = path.read_text().rpartition(")")
        except OSError:
            continue  # It ended.
        fields = rest.split()
        found[int(path.parent.name), head.partition("(")[2]] = int(fields[11]) + int(fields[12])
    columns = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    return Ticks([int(column) for column in columns], found)


def _git(*words: str) -> str:
    """What git says of this checkout; nothing where there is none."""
    here = Path(__file__).resolve().parent
    return subprocess.run(["git", "-C", here, *words], capture_output=True, text=True, check=False).stdout.strip()
