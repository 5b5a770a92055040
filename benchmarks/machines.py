"""Containers and units on lab machines: what a user waits for."""

from __future__ import annotations

import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers import ROOT
from benchmarks.processes import BenchError
from benchmarks.table import Row

COMMAND_TIMEOUT_S = 300
FORMED_TIMEOUT_S = 60.0
NEEDED = ("ip", "nft", "nsenter", "runc")
P95 = 0.95
NAME = "bench"


def missing() -> str:
    """A sentence that says why no lab can be made here; empty when one can."""
    lacking = [name for name in NEEDED if shutil.which(name) is None]
    if os.geteuid() != 0:
        return "Containers and units are left out, since lab machines need root."
    return f"Containers and units are left out, since {', '.join(lacking)} is missing." if lacking else ""


def _run(*command: str, given: bytes | None = None) -> str:
    done = subprocess.run(
        command, cwd=ROOT, input=given or b"", capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise BenchError(f"{' '.join(command)}: exit code {done.returncode}: {said}")
    return done.stdout.decode()


class Lab:
    """Machines m1, m2 ... of a lab that is ours alone."""

    def __init__(self, name: str) -> None:
        self.name = name

    def on(self, machine: str, *command: str, given: bytes | None = None) -> str:
        """What a command inside a machine prints. Raises BenchError when it fails."""
        return _run("fleet-lab", "exec", "--name", self.name, machine, "--", *command, given=given)

    def inside(self, what: str, place: Path, count: int) -> dict[str, list[float]]:
        """Seconds that commands took inside m1, by command."""
        program = ("env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "benchmarks.inside")
        found: dict[str, list[float]] = json.loads(self.on("m1", *program, what, str(place), str(count)))
        return found

    def wait_formed(self, count: int) -> None:
        """Wait until m1 lists all machines. Raises BenchError."""
        end = time.monotonic() + FORMED_TIMEOUT_S
        while True:
            try:
                if len(self.on("m1", "fleetctl", "list-machines", "--no-legend").splitlines()) == count:
                    return
            except BenchError:
                pass  # It forms yet.
            if time.monotonic() > end:
                raise BenchError(f"lab {self.name}: no cluster of {count} within {FORMED_TIMEOUT_S:.0f} s")
            time.sleep(0.1)


@contextmanager
def lab(count: int, place: Path) -> Iterator[Lab]:
    """A lab with its data under `place`; gone at the end."""
    made = Lab(NAME)
    try:
        _run("fleet-lab", "up", "--name", made.name, "-n", str(count), "--dir", str(place))
        made.wait_formed(count)
        yield made
    finally:
        _run("fleet-lab", "down", "--name", made.name)


def image() -> bytes:
    """A root file system of Debian's static busybox, as a tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add("/usr/bin/busybox", "bin/busybox")
        link = tarfile.TarInfo("bin/true")
        link.type, link.linkname = tarfile.SYMTYPE, "busybox"
        archive.addfile(link)
    return buffer.getvalue()


def measure(place: Path, count: int, say: Callable[[str], None], left_out: Callable[[str], None]) -> Iterator[Row]:
    """All rows about containers and units, from one lab of three machines."""
    say("a lab of three machines")
    with lab(3, place / "lab") as made:
        if shutil.which("docker"):
            say(f"docker run and runc run, {count} times each")
            made.on("m1", "dock", "import", "-", "busybox", given=image())
            yield from _containers(made.inside("run", place, count))
        else:
            left_out("docker run is left out, since there is no docker client.")
        say(f"fleetctl start, {count} times")
        for name, seconds in made.inside("units", place / "units", count).items():
            what = "fleetctl start, until the unit runs" if name == "fleetctl start" else name
            yield Row(f"{what}: p50", "ms", "less", {"ours": statistics.median(seconds) * 1e3})
            yield Row(f"{what}: p95", "ms", "less", {"ours": _p95(seconds) * 1e3})


def _containers(took: dict[str, list[float]]) -> Iterator[Row]:
    for client in ("docker", "dock"):
        for name, pick in (("p50", statistics.median), ("p95", _p95)):
            figures = {"ours": pick(took[f"{client} run"]) * 1e3, "runc run": pick(took["runc run"]) * 1e3}
            yield Row(f"{client} run --rm busybox true: {name}", "ms", "less", figures)
    yield Row(
        "docker version, for the client's own part: p50",
        "ms",
        "less",
        {"ours": statistics.median(took["docker version"]) * 1e3},
    )


def _p95(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * P95))]
