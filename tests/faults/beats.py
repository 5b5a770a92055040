"""Units that write a beat ten times a second, with machine and boot: what ran where, from when to when.

Times are the kernel's uptime, which all lab machines and their containers share, in seconds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.lab import Lab

FRESH_S = 1.0
"""A unit that runs has written a beat since then."""
LOOP = (
    "read s r < /proc/uptime; while :; do read u r < /proc/uptime; "
    'echo "%m %b $$s $$u" >> {notes}/%p.beats; sleep 0.1; done'
)
PLAIN = f"[Service]\nExecStart=/bin/sh -c '{LOOP}'\nRestart=always\n"
BOXED = (
    "[Unit]\nRequires=docker.service\nAfter=docker.service\n[Service]\nRestart=always\n"
    f"ExecStart=/usr/bin/docker run --rm --name %p -v {{notes}}:{{notes}} busybox /bin/sh -c '{LOOP}'\n"
)


@dataclass(frozen=True)
class Run:
    """One life of a unit."""

    machine: str
    """Its machine-id."""
    boot: str
    begin: float
    end: float
    """Its last beat so far."""

    def __str__(self) -> str:
        return f"{self.machine[:8]} boot {self.boot[:8]} {self.begin:.2f} to {self.end:.2f}"


def start(lab: Lab, plain: int, boxed: int) -> list[str]:
    """Start so many units of each kind; returns their names."""
    texts = {f"plain{at}": PLAIN for at in range(plain)} | {f"boxed{at}": BOXED for at in range(boxed)}
    files = [lab.unit_file(f"{name}.service", text.replace("{notes}", str(lab.notes))) for name, text in texts.items()]
    lab.on(lab.names[0], "fleetctl", "start", *files)
    return list(texts)


def runs(lab: Lab, name: str) -> list[Run]:
    """Every life of a unit, in the order of their beginnings."""
    path = lab.notes / f"{name}.beats"
    found: dict[tuple[str, str, float], float] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        machine, boot, begin, at = line.split()
        found[machine, boot, float(begin)] = float(at)
    return sorted((Run(*key, end) for key, end in found.items()), key=lambda run: run.begin)


def uptime() -> float:
    """The kernel's, in the beats' terms."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def live(lab: Lab, name: str) -> list[Run]:
    """The lives of a unit that beat just now."""
    return [run for run in runs(lab, name) if uptime() - run.end < FRESH_S]


def overlaps(found: list[Run]) -> list[str]:
    """Pairs of lives of one unit that were there at the same time."""
    return [
        f"{one} and {other}"
        for at, one in enumerate(found)
        for other in found[at + 1 :]
        if one.end > other.begin
    ]  # fmt: skip
