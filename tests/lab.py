"""Lab machines for tests: a lab of the test's own, driven by the public commands alone."""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from tests import etcdlab

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
PEERS = ROOT / "build/peers/usr/bin"
SHARED = Path("/var/tmp")
"""Machines see the host's files, except /run, /tmp and their own data: here a unit can leave notes for the test."""
COMMAND_TIMEOUT_S = 120.0
FORMED_TIMEOUT_S = 120.0
PATIENCE_S = 90.0
"""For what a quiet machine does in seconds: labs share few processors, and slow disks."""
END_TIMEOUT_S = 5.0
APPLETS = ("sh", "sleep", "echo", "true", "cat", "ls", "date", "seq", "kill")

T = TypeVar("T")
Store = Literal["own", "etcd"]
"""The machines' own, or a real etcd beside them."""


def until(what: str, found: Callable[[], T | None], timeout: float, pause: float = 0.1) -> T:
    """Return the first true answer of `found`. Raises AssertionError that names `what` after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not (answer := found()):
        assert time.monotonic() < end, f"{what} did not happen within {timeout:.0f} s"
        time.sleep(pause)
    return answer


def busybox() -> bytes:
    """A root file system of Debian's static busybox, as a tar for `dock import`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add("/usr/bin/busybox", "bin/busybox")
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
    return buffer.getvalue()


class Lab:
    """Some machines named m1, m2 ... Use it as a context manager; at its end all of it is gone."""

    def __init__(
        self,
        name: str,
        count: int = 3,
        *daemon_args: str,
        hold: tuple[str, ...] = (),
        store: Store = "etcd" if etcdlab.WANTED else "own",
        disks: bool = False,
    ) -> None:
        self.name = f"{name[:12]}-{os.getpid()}"  # two runs on one host take nothing from each other
        self.names = [f"m{at}" for at in range(1, count + 1)]
        self.daemon_args = daemon_args
        self.hold = hold
        self.disks = disks
        self.notes = SHARED / f"fleetd-test-{self.name}"
        self.store = store
        self.ends = contextlib.ExitStack()

    def __enter__(self) -> Lab:
        self.notes.mkdir(exist_ok=True)
        self.ends.callback(shutil.rmtree, self.notes, ignore_errors=True)
        self.ends.callback(self.lab, "down")
        try:
            if self.store == "etcd":
                self._up_on_etcd()
            else:
                self._up(self.hold, self.daemon_args)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.ends.close()

    def _up(self, held: tuple[str, ...] | list[str], daemon_args: tuple[str, ...]) -> None:
        hold = [word for one in held for word in ("--hold", one)]
        disks = ["--disks"] if self.disks else []
        self.lab("up", "-n", str(len(self.names)), *disks, *hold, "--", *daemon_args)

    def _up_on_etcd(self) -> None:
        """The network has to be there before etcd, and etcd before the machines."""
        self._up(self.names, (*self.daemon_args, "--kv-endpoints", ",".join(etcdlab.client_urls())))
        self.ends.enter_context(etcdlab.etcd(self.name, SHARED / f"fleetd-etcd-{self.name}"))
        started = [name for name in self.names if name not in self.hold]
        for name in started:
            self.lab("start", name)
        for name in started:
            until(f"{name}'s answer", partial(self.answers, name), FORMED_TIMEOUT_S)

    def lab(self, verb: str, *words: str) -> str:
        """Run `fleet-lab VERB --name LAB WORD...` and return what it prints. Raises AssertionError when it fails."""
        return self._run(["fleet-lab", verb, "--name", self.name, *words]).stdout.decode()

    def status(self) -> dict[str, Any]:
        """What `fleet-lab status --json` says."""
        found: dict[str, Any] = json.loads(self.lab("status", "--json"))
        return found

    def machine(self, name: str) -> dict[str, Any]:
        """One machine's part of the status."""
        return next(one for one in self.status()["machines"] if one["name"] == name)

    def ids(self) -> dict[str, str]:
        """Machine-id -> name."""
        return {one["machine_id"]: one["name"] for one in self.status()["machines"]}

    def on(self, machine: str, *command: str, given: bytes | None = None) -> str:
        """Run a command inside a machine; returns what it prints. Raises AssertionError when it fails."""
        return self.attempt(machine, *command, given=given, check=True).stdout.decode()

    def attempt(
        self, machine: str, *command: str, given: bytes | None = None, check: bool = False
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command inside a machine, whatever its exit code; it is killed after COMMAND_TIMEOUT_S."""
        words = ["fleet-lab", "exec", "--name", self.name, machine, "--", *command]
        return self._run(words, given=given, check=check)

    def popen(self, machine: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a command inside a machine that goes on; the caller ends it with `end`."""
        words = ["fleet-lab", "exec", "--name", self.name, machine, "--", *command]
        return subprocess.Popen(
            words, env=self.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def kill(self, machine: str) -> float:
        """Cut a machine's power; returns the wall clock's second at which its pid 1 was seen gone."""
        watched = os.pidfd_open(int(self.machine(machine)["pid"]))
        try:
            command = subprocess.Popen(["fleet-lab", "kill", "--name", self.name, machine], env=environment())
            gone, _, _ = select.select([watched], [], [], COMMAND_TIMEOUT_S)
            at = time.time()
        finally:
            os.close(watched)
        assert command.wait(COMMAND_TIMEOUT_S) == 0 and gone, f"{machine} was not killed"
        return at

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """End what `popen` started: the entering process waits for the real one, which would live on without it."""
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        with contextlib.suppress(OSError):
            for pid in children.read_text().split():
                os.kill(int(pid), signal.SIGTERM)
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def import_busybox(self, *machines: str) -> None:
        """Give machines (all of them when none is named) the image `busybox`."""
        for machine in machines or self.names:
            self.on(machine, "dock", "import", "-", "busybox", given=busybox())

    def wait_formed(self, asked: str = "m1", count: int | None = None) -> None:
        """Wait until `asked` lists this many machines (default: all), and the store has its voters."""
        wanted = count or len(self.names)

        def formed() -> bool:
            done = self.attempt(asked, "fleetctl", "list-machines", "--no-legend")
            return done.returncode == 0 and len(done.stdout.splitlines()) == wanted

        until(f"a cluster of {wanted}", formed, FORMED_TIMEOUT_S)
        until("three voters", lambda: len(self.voters(asked)) >= min(wanted, 3), FORMED_TIMEOUT_S)

    def answers(self, machine: str) -> bool:
        """Whether a machine's fleetd answers."""
        return self.attempt(machine, "fleetctl", "list-machines").returncode == 0

    def voters(self, asked: str = "m1") -> list[dict[str, Any]]:
        """The store's voting members, as `kvctl member list --json` tells; empty while there is no answer."""
        done = self.attempt(asked, "kvctl", "member", "list", "--json")
        if done.returncode != 0:
            return []
        members: list[dict[str, Any]] = json.loads(done.stdout)["members"]
        return [one for one in members if not one.get("isLearner")]

    def units(self, asked: str) -> dict[str, dict[str, Any]]:
        """What `fleetctl list-units --json` says on a machine, by unit name; empty while there is no answer."""
        done = self.attempt(asked, "fleetctl", "list-units", "--json")
        if done.returncode != 0:
            return {}
        return {str(one["unit"]): one for one in json.loads(done.stdout)}

    def running_on(self, unit: str, asked: str) -> str | None:
        """The name of the machine that `unit` runs on, by the word of `asked`."""
        found = self.units(asked).get(unit)
        if found is None or (found["active"], found["sub"]) != ("active", "running"):
            return None
        return self.ids().get(str(found["machine"]))

    def unit_file(self, name: str, text: str) -> str:
        """Lay a unit file where every machine sees it; returns its path."""
        path = self.notes / name
        path.write_text(text)
        return str(path)

    def log_of(self, machine: str) -> str:
        """A machine's fleetd log, its last part, for a failing test's message."""
        return Path(self.machine(machine)["log"]).read_text()[-4000:]

    def environment(self) -> dict[str, str]:
        """What commands see: with an etcd beside the machines, their clients ask that."""
        urls = ",".join(etcdlab.client_urls()) if self.store == "etcd" else ""
        return environment() | ({"ETCDCTL_ENDPOINTS": urls} if urls else {})

    def _run(
        self, words: list[str], *, given: bytes | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        feed: dict[str, Any] = {"stdin": subprocess.DEVNULL} if given is None else {"input": given}
        done = subprocess.run(
            words, env=self.environment(), capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False, **feed
        )
        if check:
            said = done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")
            assert done.returncode == 0, f"{' '.join(words)}: exit code {done.returncode}: {said}"
        return done


def environment() -> dict[str, str]:
    """Our commands first in PATH, then etcd's client."""
    return {**os.environ, "PATH": f"{BIN}:{PEERS}:{os.environ['PATH']}", "ETCDCTL_API": "3"}
