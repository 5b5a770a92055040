"""The store beside its peers: writes, reads, watches, memory and CPU, all under the same native load generator.

Every peer's members run during the whole of a pass, and only one peer at a time has load. The rounds go A B C, A B C,
so that what else the machine does falls on all of them; the medians of the rounds are told.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import Peer
from benchmarks.processes import BenchError, Memory, Process, free_ports
from benchmarks.table import Better, Row

READY_TIMEOUT_S = 60.0
LOAD_TIMEOUT_S = 300.0
FILL = 100_000
"""Puts before memory is read, each to a key of its own."""
CONNECTIONS = 6
"""Connections of the many clients, spread evenly over the members."""
WATCHERS = 100
OPS_PER_CPU_FIGURE = 1_000


@dataclass(frozen=True)
class Cell:
    """One kind of load."""

    name: str
    words: tuple[str, ...]
    clients: int
    events: bool = False


PUTS = (Cell("put", ("put",), 1), Cell("put", ("put",), 64))
GETS = (
    Cell("get, linearizable", ("get",), 64),
    Cell("get, serializable", ("get", "--serializable"), 64),
)
WATCHES = (Cell(f"watch, {WATCHERS} watchers", ("watch", "--watchers", str(WATCHERS)), 64, events=True),)


@dataclass(frozen=True)
class Sample:
    """What one run of the load generator found. Times in milliseconds, CPU in seconds per 1,000 operations."""

    rate: float
    p50: float
    p99: float
    client_cpu: float
    member_cpu: float


class Cluster:
    """The members of one peer, on loopback ports."""

    def __init__(self, peer: Peer, count: int, place: Path) -> None:
        self.peer = peer
        self.place = place
        self.ports = free_ports(2 * count)
        self.members: list[Process] = []

    def start(self) -> None:
        """Start the members and wait until each knows a leader. Raises BenchError."""
        count = len(self.ports) // 2
        urls = [f"http://127.0.0.1:{port}" for port in self.ports]
        initial = ",".join(f"m{at}={urls[count + at]}" for at in range(count))
        self.place.mkdir(parents=True)
        for at in range(count):
            command = [
                *(*self.peer.command, "--name", f"m{at}", "--data-dir", str(self.place / f"m{at}")),
                *("--listen-client-urls", urls[at], "--advertise-client-urls", urls[at]),
                *("--listen-peer-urls", urls[count + at], "--initial-advertise-peer-urls", urls[count + at]),
                *("--initial-cluster", initial, "--initial-cluster-state", "new", *self.peer.quiet),
            ]
            self.members.append(Process(command, self.place / f"m{at}.log"))
        end = time.monotonic() + READY_TIMEOUT_S
        for member, url in zip(self.members, urls, strict=False):
            while not _healthy(url):
                member.check()
                if time.monotonic() > end:
                    raise BenchError(f"{self.peer.name}: no leader after {READY_TIMEOUT_S:.0f} s, see {member.log}")
                time.sleep(0.05)

    def stop(self) -> None:
        """End all members."""
        for member in self.members:
            member.stop()

    def load(self, cell: Cell, *length: str) -> Sample:
        """Run the load generator on this cluster. Raises BenchError."""
        # The leader comes first, so that one client speaks to it, whoever is measured.
        ports = sorted(self.ports[: len(self.ports) // 2], key=lambda port: not _leads(f"http://127.0.0.1:{port}"))
        endpoints = ",".join(f"127.0.0.1:{port}" for port in ports)
        connections = str(min(cell.clients, CONNECTIONS))
        words = [*cell.words, "--clients", str(cell.clients), "--connections", connections, *length]
        before = [member.cpu_s() for member in self.members]
        try:
            done = subprocess.run(
                ["kvload", *words, "--endpoints", endpoints, "--json"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=LOAD_TIMEOUT_S,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            raise BenchError(f"{self.peer.name}: kvload {' '.join(words)}: {error.stderr.decode().strip()}") from error
        used = sum(member.cpu_s() for member in self.members) - sum(before)
        told = json.loads(done.stdout)
        thousands = told["events" if cell.events else "ops"] / OPS_PER_CPU_FIGURE
        rate = told["events_per_s" if cell.events else "ops_per_s"]
        return Sample(rate, told["p50_ms"], told["p99_ms"], told["cpu_s"] / thousands, used / thousands)


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


@contextmanager
def running(peers: list[Peer], count: int, place: Path) -> Iterator[list[Cluster]]:
    """A cluster of `count` members for each peer; all end at the end."""
    with ExitStack() as stack:
        clusters = []
        for at, peer in enumerate(peers):
            cluster = Cluster(peer, count, place / f"{count}-{at}")
            stack.callback(cluster.stop)
            cluster.start()
            clusters.append(cluster)
        yield clusters


def measure(peers: list[Peer], place: Path, rounds: int, seconds: float, say: Callable[[str], None]) -> Iterator[Row]:
    """All rows about the store."""
    for count in (3, 1):
        with running(peers, count, place) as clusters:
            fill = Cell("put", ("put", "--key-space", str(FILL)), 64)
            for cluster in clusters:
                say(f"{cluster.peer.name}: {FILL:,} puts, {_of(count)}")
                cluster.load(fill, "--total", str(FILL))
            if count == 3:
                yield from _memory(clusters)
            for cell in (*PUTS, *GETS, *WATCHES) if count == 3 else PUTS:
                yield from _cell(cell, clusters, rounds, seconds, say)


def _cell(
    cell: Cell, clusters: list[Cluster], rounds: int, seconds: float, say: Callable[[str], None]
) -> Iterator[Row]:
    samples: dict[str, list[Sample]] = {cluster.peer.name: [] for cluster in clusters}
    where = f"{_of(len(clusters[0].members))}, {cell.clients} client{'s' if cell.clients > 1 else ''}"
    for number in range(rounds):
        for cluster in clusters:
            say(f"{cell.name}, {where}: {cluster.peer.name}, round {number + 1} of {rounds}")
            samples[cluster.peer.name].append(cluster.load(cell, "--duration", str(seconds)))
    what = f"{cell.name}, {where}"

    def row(name: str, unit: str, better: Better, figure: Callable[[Sample], float]) -> Row:
        medians = {peer: statistics.median(figure(one) for one in found) for peer, found in samples.items()}
        return Row(f"{what}: {name}" if name else what, unit, better, medians)

    thing = "events" if cell.events else "operations"
    yield row("", f"{thing}/s", "more", lambda one: one.rate)
    if not cell.events:
        yield row("p50", "ms", "less", lambda one: one.p50)
        yield row("p99", "ms", "less", lambda one: one.p99)
    yield row("members' CPU", f"s/1,000 {thing}", "less", lambda one: one.member_cpu)
    yield row("client's CPU", f"s/1,000 {thing}", "less", lambda one: one.client_cpu)


def _memory(clusters: list[Cluster]) -> Iterator[Row]:
    found = {cluster.peer.name: [member.memory() for member in cluster.members] for cluster in clusters}

    def row(name: str, figure: Callable[[Memory], int]) -> Row:
        medians = {peer: statistics.median(figure(one) for one in each) / 1e6 for peer, each in found.items()}
        return Row(f"a member's {name} after {FILL:,} puts", "MB", "less", medians)

    yield row("RssAnon", lambda one: one.anonymous)
    yield row("RssFile", lambda one: one.file)


def _of(count: int) -> str:
    return f"{count} member{'s' if count > 1 else ''}"
