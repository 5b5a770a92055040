"""Clusters of one peer's members on loopback ports, and the load generator on them.

The members of all peers run during a whole pass, and only one peer at a time has load.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers import Peer
from benchmarks.ports import free_ports
from benchmarks.processes import BenchError, Memory, Process

READY_TIMEOUT_S = 60.0
CAUGHT_UP_TIMEOUT_S = 180.0
LOAD_TIMEOUT_S = 400.0
COMMAND_TIMEOUT_S = 60.0
LOOK_S = 0.02
"""How often it is looked whether a member serves."""
CONNECTIONS = 6
"""Connections of many clients, spread evenly over the members."""
OPS_PER_CPU_FIGURE = 1_000


@dataclass(frozen=True)
class Cell:
    """One kind of load. Without `connections` the clients share at most six."""

    name: str
    words: tuple[str, ...]
    clients: int
    events: bool = False
    connections: int | None = None


@dataclass(frozen=True)
class Sample:
    """What one run of the load generator found. Times in milliseconds, CPU in seconds per 1,000 operations; of a load
    of events these are what is counted and, but for the first four times, timed."""

    rate: float
    p50: float
    p99: float
    p999: float
    slowest: float
    client_cpu: float
    member_cpu: float
    event_p50: float = 0.0
    event_p99: float = 0.0


class Cluster:
    """The members of one peer."""

    def __init__(self, peer: Peer, place: Path, ports: list[int], flags: tuple[str, ...] = ()) -> None:
        """With two ports for each member: one for clients, one for the others."""
        self.peer = peer
        self.place = place
        self.flags = flags
        self.ports, self.peer_ports = ports[0::2], ports[1::2]
        self.members: list[Process] = []

    def launch(self) -> None:
        """Start the members; `wait` for them afterwards."""
        self.place.mkdir(parents=True)
        for at in range(len(self.ports)):
            self.members.append(self._member(at, "new"))

    def wait(self) -> None:
        """Wait until each member knows a leader. Raises BenchError."""
        for at in range(len(self.ports)):
            self._wait(at)

    def stop(self) -> None:
        """End all members."""
        for member in self.members:
            member.stop()

    def memory(self) -> Memory:
        """The median of the members'."""
        each = [member.memory() for member in self.members]
        return Memory(
            int(statistics.median(one.anonymous for one in each)), int(statistics.median(one.file for one in each))
        )

    def load(self, cell: Cell, *length: str) -> Sample:
        """Run the load generator on this cluster. Raises BenchError."""
        ports = self._leader_first()
        connections = str(cell.connections or min(cell.clients, CONNECTIONS))
        words = [*cell.words, "--clients", str(cell.clients), "--connections", connections, *length]
        before = [member.cpu_s() for member in self.members]
        told = self._kvload(ports, *words)
        used = sum(member.cpu_s() for member in self.members) - sum(before)
        thousands = told["events" if cell.events else "ops"] / OPS_PER_CPU_FIGURE
        return Sample(
            told["events_per_s" if cell.events else "ops_per_s"],
            *(told["p50_ms"], told["p99_ms"], told["p999_ms"], told["max_ms"]),
            *(told["cpu_s"] / thousands, used / thousands),
            *(told["event_p50_ms"], told["event_p99_ms"]),
        )

    def restart(self) -> float:
        """End a follower and start it again. Returns the seconds from its start until it answers a linearizable get,
        so until it has all that the leader had. Raises BenchError."""
        at = self._follower()
        self.members[at].stop()
        return self._served(at, "existing")

    def replace(self) -> float:
        """End a follower, wipe its data, and let it join anew: the operator's way for a member that lost its disk.
        Returns the seconds as `restart` does. Raises BenchError."""
        at = self._follower()
        self.members[at].stop()
        shutil.rmtree(self._data(at))
        listed = json.loads(self.kvctl("member", "list", "--write-out", "json"))
        lost = next(int(one["ID"]) for one in listed["members"] if self._peer_url(at) in one["peerURLs"])
        self.kvctl("member", "remove", f"{lost:x}")
        self._add(at)
        return self._served(at, "existing")

    def _served(self, at: int, state: str) -> float:
        began = time.monotonic()
        self.members[at] = self._member(at, state)
        self._wait(at)
        while True:
            # A member that is far behind may be healthy, and yet let a read run into its time limit.
            try:
                self._kvload([self.ports[at]], "get", "--total", "1")
                return time.monotonic() - began
            except BenchError:
                if time.monotonic() - began > CAUGHT_UP_TIMEOUT_S:
                    raise
                time.sleep(LOOK_S)

    def _add(self, at: int) -> None:
        """Add the member. Stores refuse that until those that are left have been connected for some seconds."""
        end = time.monotonic() + READY_TIMEOUT_S
        while True:
            try:
                self.kvctl("member", "add", f"m{at}", f"--peer-urls={self._peer_url(at)}")
                return
            except BenchError as error:
                if "unhealthy cluster" not in str(error) or time.monotonic() > end:
                    raise
                time.sleep(LOOK_S)

    def _member(self, at: int, state: str) -> Process:
        url, peer = _url(self.ports[at]), self._peer_url(at)
        initial = ",".join(f"m{one}={self._peer_url(one)}" for one in range(len(self.ports)))
        command = [
            *(*self.peer.command, "--name", f"m{at}", "--data-dir", str(self._data(at))),
            *("--listen-client-urls", url, "--advertise-client-urls", url),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", initial, "--initial-cluster-state", state, *self.peer.quiet, *self.flags),
        ]
        return Process(command, self.place / f"m{at}.log")

    def _wait(self, at: int) -> None:
        end = time.monotonic() + READY_TIMEOUT_S
        while not _healthy(_url(self.ports[at])):
            self.members[at].check()
            if time.monotonic() > end:
                log = self.members[at].log
                raise BenchError(f"{self.peer.name}: not healthy after {READY_TIMEOUT_S:.0f} s, see {log}")
            time.sleep(LOOK_S)

    def _leader_first(self) -> list[int]:
        """Ports with the leader's first, so that one client speaks to it, whoever is measured."""
        return sorted(self.ports, key=lambda port: not _leads(_url(port)))

    def _follower(self) -> int:
        return self.ports.index(self._leader_first()[-1])

    def _data(self, at: int) -> Path:
        return self.place / f"m{at}"

    def _peer_url(self, at: int) -> str:
        return _url(self.peer_ports[at])

    def _kvload(self, ports: list[int], *words: str) -> dict[str, Any]:
        endpoints = ",".join(f"127.0.0.1:{port}" for port in ports)
        told: dict[str, Any] = json.loads(
            self._run(["kvload", *words, "--endpoints", endpoints, "--json"], LOAD_TIMEOUT_S)
        )
        return told

    def kvctl(self, *words: str) -> str:
        """What a command of kvctl prints, with the leader. Raises BenchError."""
        kvctl = [sys.executable, "-m", "cli.kvctl.app", "--endpoints", _url(self._leader_first()[0])]
        return self._run([*kvctl, *words], COMMAND_TIMEOUT_S)

    def _run(self, command: list[str], timeout_s: float) -> str:
        try:
            return subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=True
            ).stdout
        except subprocess.CalledProcessError as error:
            raise BenchError(f"{self.peer.name}: {' '.join(command)}: {error.stderr.strip()}") from error
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"{self.peer.name}: {' '.join(command)}: no end after {timeout_s:.0f} s") from error


@contextmanager
def running(peers: list[Peer], count: int, place: Path, flags: tuple[str, ...] = ()) -> Iterator[list[Cluster]]:
    """A cluster of `count` members for each peer; all end at the end."""
    with ExitStack() as stack:
        ports = free_ports(2 * count * len(peers))
        clusters = [
            Cluster(peer, place / f"{count}-{at}", ports[at :: len(peers)], flags) for at, peer in enumerate(peers)
        ]
        for cluster in clusters:
            stack.callback(cluster.stop)
            cluster.launch()
        for cluster in clusters:
            cluster.wait()
        yield clusters


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def _healthy(url: str) -> bool:
    return b'"health":"true"' in _fetch(f"{url}/health")


def _leads(url: str) -> bool:
    return b"\netcd_server_is_leader 1\n" in _fetch(f"{url}/metrics")


def _fetch(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            body: bytes = answer.read()
    except OSError:
        return b""
    return body
