"""What really runs on a lab's machines, read from the host's /proc: the other side of what `list-units` says."""

from __future__ import annotations

import contextlib
import functools
import time
from pathlib import Path

from tests.lab import PATIENCE_S, Lab, until

MARK = "FLEETD_TEST_UNIT"


def service(lab: Lab, name: str, *, fleet: str = "") -> str:
    """Lay the file of a unit that sleeps and notes each of its starts; returns its path."""
    notes = lab.notes / f"{name}.starts"
    return lab.unit_file(
        f"{name}.service",
        f"[Service]\nEnvironment={MARK}={lab.name}/{name}.service\n"
        f"ExecStart=/bin/sh -c 'cat /etc/machine-id >> {notes}; exec sleep 1d'\n"
        f"[X-Fleet]\n{fleet}\n",
    )


def start(lab: Lab, asked: str, *names: str, fleet: str = "") -> None:
    """Start such units and return when they run."""
    lab.on(asked, "fleetctl", "start", *(service(lab, name, fleet=fleet) for name in names))


def starts(lab: Lab, name: str) -> int:
    """How often a unit was started, on any machine."""
    notes = lab.notes / f"{name}.starts"
    return len(notes.read_text().splitlines()) if notes.exists() else 0


@functools.cache
def names(lab: Lab) -> dict[str, str]:
    """Machine-id -> name, asked once: a whole status takes a second."""
    return lab.ids()


@functools.cache
def pid_file(lab: Lab, machine: str) -> Path:
    """Where the lab notes the host's pid of a machine's pid 1 while it is on."""
    return Path(lab.machine(machine)["log"]).with_name("pid")


def processes(lab: Lab) -> dict[str, dict[int, str]]:
    """Unit -> host pid of each of its processes -> machine."""
    machines = {}
    for name in lab.names:
        with contextlib.suppress(OSError):
            machines[Path(f"/proc/{pid_file(lab, name).read_text().split()[0]}/ns/pid").readlink()] = name
    mark = f"{MARK}={lab.name}/".encode()
    found: dict[str, dict[int, str]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            unit = next(
                (v[len(mark) :] for v in (path / "environ").read_bytes().split(b"\0") if v.startswith(mark)), b""
            )
            machine = machines.get((path / "ns/pid").readlink())
            if unit and machine:
                found.setdefault(unit.decode(), {})[int(path.name)] = machine
    return found


def running(lab: Lab, asked: str) -> dict[str, str | None]:
    """The units that run by the word of a machine, and where."""
    return {
        unit: names(lab).get(str(row["machine"]))
        for unit, row in lab.units(asked).items()
        if (row["active"], row["sub"]) == ("active", "running")
    }


def agreed(lab: Lab, asked: str, units: int) -> dict[str, dict[int, str]] | None:
    """The processes, when there are so many units, each with exactly one, where `asked` says that it runs."""
    told = running(lab, asked)
    found = processes(lab)
    real = {unit: next(iter(where.values())) for unit, where in found.items() if len(where) == 1}
    return found if len(real) == len(found) == units and real == told else None


def wait_agreed(lab: Lab, asked: str, units: int, timeout: float = PATIENCE_S) -> dict[str, dict[int, str]]:
    """Wait until list-units says what is so; the processes then."""
    try:
        return until(f"list-units on {asked} and reality agreeing", lambda: agreed(lab, asked, units), timeout)
    except AssertionError as late:
        raise AssertionError(f"{late}: told {lab.units(asked)}, found {processes(lab)}") from late


class Clock:
    """Prints how long things took, for the test's output."""

    def __init__(self) -> None:
        self._begin = time.monotonic()

    def seconds(self) -> float:
        """Since it was made."""
        return time.monotonic() - self._begin

    def say(self, what: str) -> None:
        """Print a time."""
        print(f"{self.seconds():6.1f} s  {what}", flush=True)
