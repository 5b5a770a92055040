"""Units that write a beat ten times a second, with machine and boot: what ran where, from when to when.

Times are the kernel's uptime, which all lab machines and their containers share, in seconds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.failover import settle
from tests.faults.trace import ROOT
from tests.lab import Lab, until

WAIT_S = 120.0
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


class Cluster:
    """Beating units on a lab's machines, so many of each kind."""

    def __init__(self, lab: Lab, plain: int, boxed: int) -> None:
        self.lab = lab
        self.units = start(lab, plain, boxed)
        self.steady()

    def boots(self) -> dict[str, str]:
        """Machine-id -> the boot that its presence tells."""
        lines = self.lab.on(self.asked(), "etcdctl", "get", "--prefix", f"{ROOT}presence/").splitlines()
        pairs = zip(lines[::2], lines[1::2], strict=True)
        return {key.rpartition("/")[2]: str(json.loads(value)["boot"]) for key, value in pairs}

    def asked(self) -> str:
        """A machine that answers."""
        return next(str(one["name"]) for one in self.lab.status()["machines"] if one["answers"])

    def steady(self) -> None:
        """Wait until each unit beats once, on the machine and in the boot that the cluster names."""
        settle(self.lab)

        def well() -> bool:
            told, boots = self.lab.units(self.asked()), self.boots()
            for name in self.units:
                now, row = live(self.lab, name), told.get(f"{name}.service")
                if len(now) != 1 or row is None or row["sub"] != "running" or now[0].machine != row["machine"]:
                    return False
                assert now[0].boot == boots[now[0].machine], f"{name} runs in a boot that is over: {now[0]}"
            return True

        try:
            until("every unit beating where the cluster says", well, WAIT_S, pause=0.3)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.story()}") from None

    def story(self) -> str:
        """All lives of all units."""
        lines = [f"now {uptime():.2f}"]
        for name in self.units:
            lines += [f"{name}: {run}" for run in runs(self.lab, name)]
        return "\n".join(lines)

    def lives(self) -> dict[str, int]:
        """How often each unit was started so far."""
        return {name: len(runs(self.lab, name)) for name in self.units}

    def on(self, *machines: str) -> set[str]:
        """The units that beat on these machines now."""
        ids = {self.lab.machine(one)["machine_id"] for one in machines}
        return {name for name in self.units if any(run.machine in ids for run in live(self.lab, name))}


def check(cluster: Cluster, victims: tuple[str, ...], fault: Callable[[], None]) -> None:
    """Let a fault happen to machines: each of their units lives once more, the others go on, and none runs twice."""
    before, hit, begin = cluster.lives(), cluster.on(*victims), uptime()
    fault()
    cluster.steady()
    after = cluster.lives()
    print(f"\n{len(hit)} units of {', '.join(victims)} run again after {uptime() - begin:.1f} s at most")
    twice = {name: found for name in cluster.units if (found := overlaps(runs(cluster.lab, name)))}
    assert not twice, f"{twice}\n{cluster.story()}"
    expected = {name: count + (name in hit) for name, count in before.items()}
    assert after == expected, f"lives before {before}, after {after}, hit {hit}\n{cluster.story()}"
