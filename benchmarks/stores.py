"""The store beside its peers: writes, reads, watches, memory and CPU, all under the same native load generator.

The rounds go A B C, A B C, so that what else the machine does falls on all of them; the medians of the rounds are told.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.cluster import Cell, Cluster, Sample, running
from benchmarks.peers import Peer
from benchmarks.processes import Memory
from benchmarks.table import Better, Row

FILL = 100_000
"""Puts before memory is read, each to a key of its own."""
WATCHERS = 100
PUTS = (Cell("put", ("put",), 1), Cell("put", ("put",), 64))
TRANSACTIONS = (Cell("transaction (compare, put)", ("txn",), 64),)
GETS = (
    Cell("get, linearizable", ("get",), 64),
    Cell("get, serializable", ("get", "--serializable"), 64),
)
WATCHES = (Cell(f"watch, {WATCHERS} watchers", ("watch", "--watchers", str(WATCHERS)), 64, events=True),)


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
            for cell in (*PUTS, *TRANSACTIONS, *GETS, *WATCHES) if count == 3 else PUTS:
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
    found = {cluster.peer.name: cluster.memory() for cluster in clusters}

    def row(name: str, figure: Callable[[Memory], int]) -> Row:
        megabytes = {peer: figure(one) / 1e6 for peer, one in found.items()}
        return Row(f"a member's {name} after {FILL:,} puts", "MB", "less", megabytes)

    yield row("RssAnon", lambda one: one.anonymous)
    yield row("RssFile", lambda one: one.file)


def _of(count: int) -> str:
    return f"{count} member{'s' if count > 1 else ''}"
