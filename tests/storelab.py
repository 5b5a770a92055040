"""What tests of the store on lab machines share: its processes on the host, etcdctl inside, a load that remembers."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.lab import Lab, environment, until

CALM_TIMEOUT_S = 90.0
ESTABLISHED = "01"
SYNC_CALLS = "fsync,fdatasync,msync,sync_file_range"
HOLD_US = 120_000_000


@dataclass(frozen=True)
class State:
    """One member's word about itself."""

    member: int
    leader: int
    term: int
    index: int
    revision: int


class Stores:
    """The stores of a lab: their processes, as the host sees them, and what Debian's etcdctl says of them."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.urls = {str(one["name"]): str(one["client_url"]) for one in lab.status()["machines"]}
        self._inits: dict[str, int] = {}
        self.powered()

    def powered(self) -> None:
        """Look again which machines are on: to be called when one was switched on or off."""
        self._inits = {one["name"]: one["pid"] for one in self.lab.status()["machines"] if one["pid"]}

    def pid(self, machine: str) -> int | None:
        """The host's pid of the store that fleetd runs on a machine, or None while there is none."""
        init = Path(f"/proc/{self._inits[machine]}")
        with contextlib.suppress(OSError, ValueError):
            inside = int(json.loads((init / "root/run/fleetd/kvstore.pid").read_text())["pid"])
            space = (init / "ns/pid").readlink()
            for path in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    if (path / "ns/pid").readlink() == space and _inside(path) == inside and _is_store(path):
                        return int(path.name)
        return None

    def wait_pid(self, machine: str, *, other_than: int | None = None) -> int:
        """The pid of a machine's store, once there is one, and another than `other_than`."""

        def found() -> int | None:
            pid = self.pid(machine)
            return None if pid == other_than else pid

        return int(until(f"a new store on {machine}", found, CALM_TIMEOUT_S, 0.05) or 0)

    def ctl(self, on: str, *words: str, at: Sequence[str] = ()) -> subprocess.CompletedProcess[bytes]:
        """Debian's etcdctl run on a machine, against the members of `at` (default: that machine's own)."""
        return self.lab.attempt(on, *self.ctl_words(on, *words, at=at))

    def ctl_words(self, on: str, *words: str, at: Sequence[str] = ()) -> list[str]:
        """The command line of `ctl`."""
        return ["etcdctl", "--endpoints", ",".join(self.urls[one] for one in (at or [on])), *words]

    def states(self) -> dict[str, State]:
        """The members that answer, of the machines that are on."""
        names = {url: name for name, url in self.urls.items()}
        words = ("--command-timeout=1s", "--dial-timeout=1s", "endpoint", "status", "-w", "json")
        done = self.ctl(next(iter(self._inits)), *words, at=list(self._inits))
        found = {}
        for one in json.loads(done.stdout or b"[]") or []:
            status, head = one["Status"], one["Status"]["header"]
            # What is zero is left out: of a learner, everything until it has its snapshot.
            numbers = (status.get("leader"), head.get("raft_term"), status.get("raftIndex"), head.get("revision"))
            found[names[one["Endpoint"]]] = State(head["member_id"], *(int(number or 0) for number in numbers))
        return found

    def calm(self) -> str:
        """Wait until all members answer and agree on one leader; returns the leader's machine."""

        def agreed() -> str | None:
            found = self.states()
            leaders = {(one.leader, one.term) for one in found.values()}
            if len(found) < len(self.urls) or len(leaders) != 1:
                return None
            return next((name for name, one in found.items() if one.member == one.leader), None)

        return str(until("all members agreeing on a leader", agreed, CALM_TIMEOUT_S))

    def entries(self, machine: str) -> int:
        """How long a member's log has become, in entries since the cluster was founded; 0 while it does not answer."""
        state = self.states().get(machine)
        return state.index if state else 0

    def founder(self) -> str:
        """The machine whose fleetd founded the cluster."""
        logs = {str(one["name"]): Path(one["log"]).read_text() for one in self.lab.status()["machines"]}
        return next(name for name, text in logs.items() if "founding cluster" in text)

    def connected(self, machine: str, program: str) -> int:
        """How many processes of a program on a machine have a TCP connection, whether it was accepted or not."""
        init = Path(f"/proc/{self._inits[machine]}")
        rows = [line.split() for line in (init / "net/tcp").read_text().splitlines()[1:]]
        open_ones = {f"socket:[{row[9]}]" for row in rows if row[3] == ESTABLISHED}
        space, count = (init / "ns/pid").readlink(), 0
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (path / "comm").read_text().strip() == program and (path / "ns/pid").readlink() == space:
                    count += any(str(fd.readlink()) in open_ones for fd in (path / "fd").iterdir())
        return count

    def contents(self, on: str, prefix: str, *, revision: int = 0) -> dict[str, Kept]:
        """All keys under a prefix, by etcdctl from a machine's own member: now, or as its own disk has a revision."""
        how = ["--consistency=s", f"--rev={revision}"] if revision else []
        answer = json.loads(said(self.ctl(on, "get", prefix, "--prefix", "-w", "json", *how)))

        def text(word: str) -> str:
            return base64.b64decode(word).decode()

        return {
            text(kv["key"]): Kept(text(kv.get("value", "")), kv["mod_revision"], kv["version"])
            for kv in answer.get("kvs", [])
        }


@dataclass(frozen=True)
class Kept:
    """A key as a member has it."""

    value: str
    revision: int
    version: int


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    """What a command printed; AssertionError when it failed."""
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    return done.stdout.decode()


def _inside(path: Path) -> int:
    lines = (path / "status").read_text().splitlines()
    return next(int(line.split()[-1]) for line in lines if line.startswith("NSpid:"))


def _is_store(path: Path) -> bool:
    return b"\0-m\0kvstore\0" in (path / "cmdline").read_bytes()


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """SIGSTOP processes, and let them go on at the end. Inside, every thread of them stands still."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        for pid in pids:
            until(f"pid {pid} standing still", partial(_still, pid), 60.0, 0.005)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _still(pid: int) -> bool:
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


@contextlib.contextmanager
def syncs_held(*pids: int) -> Iterator[list[Path]]:
    """Keep every sync of processes from beginning (ptrace through strace); yields the files of calls that are held.

    At the end they are let go, and run.
    """
    held: list[subprocess.Popen[bytes]] = []
    notes = [Path(f"/var/tmp/fleetd-test-strace-{pid}") for pid in pids]
    try:
        for pid, note in zip(pids, notes, strict=True):
            words = ["strace", "-q", "-f", "-p", str(pid), "-e", f"trace={SYNC_CALLS}", "-o", str(note)]
            held.append(subprocess.Popen([*words, "-e", f"inject={SYNC_CALLS}:delay_enter={HOLD_US}"]))
            until(f"strace on pid {pid}", partial(_all_traced, pid), 60.0, 0.01)
        yield notes
    finally:
        for one in held:
            one.terminate()
        for one in held:
            one.wait(60)
        for note in notes:
            note.unlink(missing_ok=True)


def _all_traced(pid: int) -> bool:
    texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return all("\nTracerPid:\t0\n" not in text for text in texts)


class Load:
    """`tests.storeload` in a machine, or beside them all, as a context manager.

    Afterwards its log is read into `writes` and `summary`.
    """

    def __init__(self, stores: Stores, machine: str | None, *, writers: int = 4) -> None:
        self._stores = stores
        tag = str(time.monotonic_ns())
        self._prefix, self._out = f"load/{tag}/", stores.lab.notes / f"load-{tag}"
        command = [sys.executable, "-m", "tests.storeload", str(self._out), tag, str(writers), *stores.urls.values()]
        inside = ["fleet-lab", "exec", "--name", stores.lab.name, machine, "--"] if machine else []
        beside = ["ip", "netns", "exec", str(stores.lab.status()["netns"])]
        self._words = [*(inside or beside), *command]
        self._process: subprocess.Popen[bytes] | None = None
        self.writes: list[dict[str, Any]] = []
        self.summary: dict[str, int] = {}
        self.violations: list[str] = []

    def __enter__(self) -> Load:
        self._process = subprocess.Popen(
            self._words, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        until("acknowledged writes of the load", lambda: self._out.exists() and self._out.stat().st_size > 1000, 60.0)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        assert self._process is not None
        try:
            printed, _none = self._process.communicate(timeout=90)
        finally:
            self._process.kill()
        assert self._process.returncode == 0, printed.decode()
        lines = [json.loads(line) for line in self._out.read_text().splitlines()]
        self.summary, self.violations = lines[-1]["summary"], lines[-1]["violations"]
        self.writes = lines[:-1]

    @property
    def acknowledged(self) -> list[dict[str, Any]]:
        """The writes that the store said yes to."""
        return [one for one in self.writes if "revision" in one]

    def outage(self, since: float) -> float:
        """Seconds from `since` to the first answer to a write that began after it."""
        return float(min(one["end"] for one in self.acknowledged if one["begin"] >= since)) - since

    def longest_pause(self) -> float:
        """The longest time in seconds between two acknowledgements."""
        ends = sorted(one["end"] for one in self.acknowledged)
        return max(float(late) - float(early) for early, late in itertools.pairwise(ends))

    def check(self, on: str) -> None:
        """By a member's word every acknowledged write is there once, with its value and revision.

        Of the others each is there as it was written, or not at all; and no reader saw anything old.
        """
        assert not self.violations, self.violations[:10]
        assert self.acknowledged and self.summary["reads"] > 0
        found = self._stores.contents(on, self._prefix)
        tried = {one["key"]: one for one in self.writes if one["key"].startswith(self._prefix)}
        for key, one in tried.items():
            got = found.get(key)
            if "revision" in one:
                assert got is not None, f"{one} was acknowledged and is gone"
                assert (got.value, got.revision, got.version) == (one["value"], one["revision"], 1), (one, got)
            elif got is not None:
                assert (got.value, got.version) == (one["value"], 1), (one, got)
