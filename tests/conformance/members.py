"""Real members of our store on loopback ports, and Debian's etcdctl, for tests."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0
"""Generous: a busy machine with a slow disk takes many times what a quiet one does."""
OURS = (sys.executable, "-m", "kvstore")


def etcdctl_path() -> str | None:
    """Where etcdctl is: $ETCDCTL, PATH, or where a `dpkg -x` of Debian's package was put."""
    candidates = [
        os.environ.get("ETCDCTL", ""),
        shutil.which("etcdctl") or "",
        str(ROOT / "build/peers/usr/bin/etcdctl"),
    ]
    return next((c for c in candidates if c and Path(c).is_file()), None)


def etcd_path() -> str | None:
    """Where Debian's etcd is, likewise."""
    candidates = [os.environ.get("ETCD", ""), shutil.which("etcd") or "", str(ROOT / "build/peers/usr/bin/etcd")]
    return next((c for c in candidates if c and Path(c).is_file()), None)


def until(what: str, check: Any, seconds: float = START_SECONDS) -> Any:
    """Return `check()` once it is true; an error names what was waited for."""
    end = time.monotonic() + seconds
    while True:
        result = check()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(f"no {what} within {seconds} s")
        time.sleep(0.05)


@dataclass
class Member:
    """One server process and how to start it again."""

    name: str
    directory: Path
    client_port: int
    peer_port: int
    extra: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    command: tuple[str, ...] = OURS
    address: str = "127.0.0.1"
    place: Path | None = None
    """Its data directory; below `directory` by its name unless one is given."""

    @property
    def client_url(self) -> str:
        return f"http://{self.address}:{self.client_port}"

    @property
    def peer_url(self) -> str:
        return f"http://{self.address}:{self.peer_port}"

    @property
    def data(self) -> Path:
        return self.place or self.directory / self.name

    @property
    def log(self) -> Path:
        return self.directory / f"{self.name}.log"

    def told(self) -> list[dict[str, Any]]:
        """The lines of its log, of ours or of etcd's; without what is not whole, or no JSON."""
        lines: list[dict[str, Any]] = []
        for line in self.log.read_text().splitlines():
            with contextlib.suppress(ValueError):
                lines.append(dict(json.loads(line)))
        return lines

    def start(self, initial: str, state: str = "new", *extra: str) -> None:
        """Start the process; does not wait for it to serve."""
        command = [
            *(*self.command, "--name", self.name, "--data-dir", str(self.data)),
            *("--listen-client-urls", self.client_url, "--advertise-client-urls", self.client_url),
            *("--listen-peer-urls", self.peer_url, "--initial-advertise-peer-urls", self.peer_url),
            *("--initial-cluster", initial, "--initial-cluster-state", state, *self.extra, *extra),
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def send(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(START_SECONDS)
        self.process = None
        return code

    def fetch(self, path: str) -> str:
        """Body of a plain HTTP GET on the client port; empty while nobody answers."""
        try:
            with urllib.request.urlopen(self.client_url + path, timeout=2) as answer:
                body: bytes = answer.read()
                return body.decode()
        except OSError:
            return ""

    def metric(self, name: str) -> int:
        """The value of a metric without labels, as soon as the member tells it."""

        def told() -> list[str]:
            return [line for line in self.fetch("/metrics").splitlines() if line.startswith(f"{name} ")]

        line: str = until(f"{name} of {self.name}, see {self.log}", told)[0]
        return int(line.split()[1])

    def healthy(self) -> bool:
        return '"health":"true"' in self.fetch("/health")


class Members:
    """A few members and the etcdctl that speaks to them."""

    def __init__(
        self, directory: Path, count: int, extra: list[str] | None = None, command: tuple[str, ...] = OURS
    ) -> None:
        ports = free_ports(2 * count)
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.extra = extra or []
        self.command = command
        self.members = [
            Member(f"m{i}", directory, ports[2 * i], ports[2 * i + 1], list(self.extra), command=command)
            for i in range(count)
        ]

    @property
    def initial(self) -> str:
        return ",".join(f"{m.name}={m.peer_url}" for m in self.members)

    def start(self) -> None:
        for member in self.members:
            member.start(self.initial)
        self.wait()

    def wait(self) -> None:
        """Wait until each running member knows a leader."""
        for member in self.members:
            if member.process is not None:
                until(f"leader known to {member.name}, see {member.log}", member.healthy)

    def close(self) -> None:
        for member in self.members:
            if member.process is not None:
                member.process.kill()
                member.process.wait()

    def ctl(self, *words: str, at: list[Member] | None = None, check: bool = True, stdin: str | None = None) -> str:
        """Standard output of etcdctl against `at` (default: all members)."""
        result = self.ctl_raw(*words, at=at, stdin=stdin)
        if check and result.returncode:
            raise AssertionError(f"etcdctl {' '.join(words)}: {result.returncode}\n{result.stdout}{result.stderr}")
        return result.stdout

    def ctl_command(self, *words: str, at: list[Member] | None = None) -> list[str]:
        program = etcdctl_path()
        assert program is not None
        endpoints = ",".join(m.client_url for m in (at or self.members))
        return [program, "--endpoints", endpoints, *words]

    def ctl_raw(
        self, *words: str, at: list[Member] | None = None, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.ctl_command(*words, at=at),
            env={**os.environ, "ETCDCTL_API": "3"},
            capture_output=True,
            text=True,
            timeout=60,
            **({"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}),
        )

    def status(self, member: Member) -> dict[str, Any]:
        """The member's Status answer, as etcdctl prints it in JSON."""
        answer = json.loads(self.ctl("endpoint", "status", "-w", "json", at=[member]))
        status: dict[str, Any] = answer[0]["Status"]
        return status

    def leader(self) -> Member:
        """The member that leads now."""

        def find() -> Member | None:
            for member in self.members:
                if member.process is not None and "\netcd_server_is_leader 1\n" in member.fetch("/metrics"):
                    return member
            return None

        found: Member = until("leader", find)
        return found


@contextlib.contextmanager
def running(members: Members) -> Iterator[Members]:
    """Started, and killed at the end."""
    try:
        members.start()
        yield members
    finally:
        members.close()
