"""`make demo`: three machines, the paper's unit on one of them, that machine's death, the unit on another; cleans up.

Every step prints what it ran and how long it took. The exit code is 0 only if all of it happened and nothing is left.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
LAB = "demo"
UNIT = "hello.service"
BUSYBOX = Path("/usr/bin/busybox")
PEERS = HERE.parent / "build/peers/usr/bin"
APPLETS = ("sh", "sleep", "echo", "true", "cat", "ls")
STEP_TIMEOUT_S = 120
FAILOVER_TIMEOUT_S = 60.0
LINE_TIMEOUT_S = 60.0
LEAVING_S = 15.0


class DemoFailed(Exception):
    """A step did not do what it should; the text says which and what came instead."""


def run(*command: str, given: bytes | None = None, quiet: bool = False) -> str:
    """Run one command, show it with its time, and return what it printed. Raises DemoFailed."""
    program = str(BIN / command[0]) if (BIN / command[0]).exists() else command[0]
    begin = time.monotonic()
    done = subprocess.run(
        [program, *command[1:]], input=given, capture_output=True, timeout=STEP_TIMEOUT_S, check=False
    )
    took = time.monotonic() - begin
    text = done.stdout.decode(errors="replace")
    if not quiet:
        print(f"\033[1m$ {shlex.join(command)}\033[0m" if sys.stdout.isatty() else f"$ {shlex.join(command)}")
        print(text, end="" if text.endswith("\n") or not text else "\n")
        print(f"  ({took:.2f} s)", flush=True)
    if done.returncode != 0:
        raise DemoFailed(f"{shlex.join(command)}: exit code {done.returncode}: {done.stderr.decode().strip()}")
    return text


def on(machine: str, *command: str, given: bytes | None = None, quiet: bool = False) -> str:
    """Run a command inside a machine of the lab."""
    return run("fleet-lab", "exec", "--name", LAB, machine, "--", *command, given=given, quiet=quiet)


class Follower:
    """A command that goes on inside a machine, its output in a file; ended with the demo."""

    started: ClassVar[list[Follower]] = []

    def __init__(self, machine: str, *command: str) -> None:
        self.title = f"fleet-lab exec --name {LAB} {machine} -- {shlex.join(command)}"
        self._shown = 0
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `end`)
        self._process = subprocess.Popen(
            [str(BIN / "fleet-lab"), "exec", "--name", LAB, machine, "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            env={**os.environ, "ETCDCTL_API": "3"},
        )
        self.started.append(self)

    def text(self) -> str:
        """All that it has printed so far."""
        return os.pread(self._output.fileno(), 1 << 20, 0).decode(errors="replace")

    def show(self, took: float) -> None:
        """Print what is new, as `run` does."""
        print(f"$ {self.title}   (goes on)\n{self.text()[self._shown :].rstrip()}\n  ({took:.2f} s)", flush=True)
        self._shown = len(self.text())

    def end(self) -> None:
        """Let it go; also what its machine's death left."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(2)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self._output.close()


def etcdctl() -> str:
    """Debian's etcdctl, as `make setup` lays it."""
    found = shutil.which("etcdctl", path=f"{PEERS}:{os.environ.get('PATH', '')}")
    if found is None:
        raise DemoFailed("etcdctl is missing: run 'make setup', which lays it into build/peers")
    return found


def image() -> bytes:
    """A root file system of Debian's static busybox, as a tar."""
    if not BUSYBOX.exists():
        raise DemoFailed(f"{BUSYBOX} is missing: run 'make setup', which installs busybox-static")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(BUSYBOX, "bin/busybox")
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
    return buffer.getvalue()


def until(what: str, found: Callable[[], bool], timeout: float) -> float:
    """Wait for a condition; returns the seconds that it took."""
    begin = time.monotonic()
    while not found():
        if time.monotonic() - begin > timeout:
            raise DemoFailed(f"{what} did not happen within {timeout:.0f} s")
        time.sleep(0.1)
    return time.monotonic() - begin


def names() -> dict[str, str]:
    """Machine-id -> the lab's name of it."""
    return {on(name, "cat", "/etc/machine-id", quiet=True).strip(): name for name in ("m1", "m2", "m3")}


def running_on(asked: str) -> str | None:
    """The machine-id that the unit runs on, as `asked` tells."""
    units = json.loads(on(asked, str(BIN / "fleetctl"), "list-units", "--json", quiet=True))
    for unit in units:
        if unit["unit"] == UNIT and unit["active"] == "active" and unit["sub"] == "running":
            return str(unit["machine"])
    return None


def show() -> None:
    """The demonstration itself."""
    fleetctl, dock = str(BIN / "fleetctl"), str(BIN / "dock")
    run("fleet-lab", "up", "--name", LAB, "-n", "3")
    until(
        "three machines in one cluster",
        lambda: len(on("m1", fleetctl, "list-machines", "--no-legend", quiet=True).splitlines()) == 3,
        STEP_TIMEOUT_S,
    )
    on("m1", fleetctl, "list-machines")
    tar = image()
    for machine in ("m1", "m2", "m3"):
        on(machine, dock, "import", "-", "busybox", given=tar)
    # From the first revision on: on a busy machine it may stand only once the unit runs.
    watchers = {
        machine: Follower(machine, etcdctl(), "watch", "--rev", "1", "--prefix", "/fleet/v1/containers/")
        for machine in ("m1", "m2", "m3")
    }
    on("m1", fleetctl, "start", str(HERE / UNIT))
    on("m1", fleetctl, "list-units")
    until(
        "a line of the unit", lambda: "Hello World" in on("m1", fleetctl, "journal", UNIT, quiet=True), LINE_TIMEOUT_S
    )
    on("m1", fleetctl, "journal", UNIT)
    known = names()
    first = running_on("m1")
    if first is None:
        raise DemoFailed(f"{UNIT} does not run after 'fleetctl start' said that it does")
    dead = known[first]
    other = next(name for name in known.values() if name != dead)
    watcher = watchers[other]
    watcher.show(
        until("the registration", lambda: f"{first}/" in watcher.text() and "busybox" in watcher.text(), LINE_TIMEOUT_S)
    )
    follower = Follower(other, fleetctl, "journal", "-f", "--lines", "2", UNIT)
    follower.show(until("a followed line", lambda: "Hello World" in follower.text(), LINE_TIMEOUT_S))
    run("fleet-lab", "kill", "--name", LAB, dead)
    took = until("the fail-over", lambda: running_on(other) not in (None, first), FAILOVER_TIMEOUT_S)
    print(f"  {UNIT} runs again, {took:.1f} s after {dead} lost its power")
    on(other, fleetctl, "list-units")
    second = running_on(other) or ""
    watcher.show(
        until("registration anew", lambda: "DELETE" in watcher.text() and second in watcher.text(), LINE_TIMEOUT_S)
    )
    follower.show(
        until(
            "the journal going on",
            lambda: "Hello World" in follower.text().partition(f"{UNIT} is on {second}")[2],
            LINE_TIMEOUT_S,
        )
    )


def leftovers() -> list[str]:
    """What of the lab is still on this machine."""
    left = [f"namespace {path}" for path in Path("/run/netns").glob(f"*{LAB}*")] if Path("/run/netns").exists() else []
    left += [
        f"folder {path}" for path in (Path("/run/fleet-lab") / LAB, Path("/var/lib/fleet-lab") / LAB) if path.exists()
    ]
    mounts = Path("/proc/mounts").read_text().splitlines()
    left += [f"mount {line.split()[1]}" for line in mounts if f"/fleet-lab/{LAB}/" in line]
    tops = (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir())
    left += [f"control group {top}/fleet-lab/{LAB}" for top in tops if (top / "fleet-lab" / LAB).exists()]
    left += [f"interface {path.name}" for path in Path("/sys/class/net").iterdir() if LAB in path.name]
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            dead = path.with_name("stat").read_text().rpartition(")")[2].split()[0] == "Z"  # init will reap it
            if not dead and f"/fleet-lab/{LAB}/" in path.read_text():
                left.append(f"process {path.parent.name}")
    return left


def main() -> int:
    """Show it, and clean up whatever happened."""
    if os.geteuid() != 0:
        print("demo: run it as root: machines are made of namespaces and control groups", file=sys.stderr)
        return 1
    begin = time.monotonic()
    failure = ""
    try:
        show()
    except (DemoFailed, subprocess.TimeoutExpired, OSError, ValueError, KeyError) as error:
        failure = str(error)
    for follower in Follower.started:
        follower.end()
    try:
        run("fleet-lab", "down", "--name", LAB)
    except (DemoFailed, subprocess.TimeoutExpired) as error:
        failure = failure or str(error)
    end = time.monotonic() + LEAVING_S  # killed processes take a moment to be reaped
    while (left := leftovers()) and time.monotonic() < end:
        time.sleep(0.1)
    if left:
        failure = failure or "left behind: " + ", ".join(left)
    if failure:
        print(f"demo: {failure}", file=sys.stderr)
        return 1
    print(f"All of it happened and nothing is left: {time.monotonic() - begin:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
