"""One point of a curve: fresh stores of all peers, loaded in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.cluster import Cell, Cluster, running
from benchmarks.curves.plan import Scale
from benchmarks.curves.results import Figures
from benchmarks.peers import Peer
from benchmarks.processes import BenchError

KEYS, VALUE_KEYS = 10_000, 50
"""Keys where their number is not the question; few where values may be large, so that the stores stay small."""
CLIENTS, VALUE_CLIENTS, WATCHED_CLIENTS = 64, 8, 16
"""Clients likewise; more of them with values of a MiB, or with 10,000 watchers, run into etcd's time limit for a
request where disk or processors are slow."""
EVENTS, MOST_PUTS, LEAST_PUTS = 1_000_000, 10_000, 100
"""Events of a watch's load, where the puts they take are neither too many nor too few."""
DELIVERIES_PER_S, PUTS_PER_S = 50_000, 500
"""What a load for delivery times stays below."""
QUOTA = ("--quota-backend-bytes", str(8 << 30))
"""etcd's 2 GB are too few for large values; the same for all."""

Say = Callable[[str], None]


def point(
    curve: str, x: int, peers: list[Peer], place: Path, scale: Scale, say: Say
) -> tuple[dict[str, Figures], dict[str, str]]:
    """Measure one point. Returns the samples by what was measured; and by the names of stores that failed at it, why.
    Raises BenchError when stores can't even be started."""
    turns = _Turns(curve, x, scale, say)
    return _point(turns, curve, x, peers, place), turns.failed


def _point(turns: _Turns, curve: str, x: int, peers: list[Peer], place: Path) -> dict[str, Figures]:
    with running(peers, x if curve == "members" else 3, place, QUOTA) as clusters:
        if curve == "watchers":
            return _watch(turns, clusters, x)
        if curve == "kept":
            turns.fill(clusters, x)
            restarts = turns.take(clusters, "restart", lambda cluster: {"seconds": cluster.restart()})
            return {
                "restart": restarts,
                "catch-up": turns.take(clusters, "catch-up", lambda cluster: {"seconds": cluster.replace()}),
            }
        clients, keys, connections = CLIENTS, KEYS, None
        value: tuple[str, ...] = ()
        if curve == "keys":
            keys = x
        elif curve == "clients":
            clients = connections = x
        elif curve == "values":
            clients, keys = VALUE_CLIENTS, VALUE_KEYS
            value = ("--val-size", str(x))
        found = {"fill": turns.fill(clusters, keys, value, min(clients, CLIENTS))}
        for what in ("put", "get"):
            words = (what, "--key-space", str(keys), *value)
            cell = Cell(what, words, clients, connections=connections)
            found[what] = turns.loads(clusters, cell, "--duration", str(turns.scale.seconds))
        return found


def _watch(turns: _Turns, clusters: list[Cluster], watchers: int) -> dict[str, Figures]:
    words = ("watch", "--watchers", str(watchers))
    puts = min(MOST_PUTS, max(LEAST_PUTS, EVENTS // watchers))
    rate = min(PUTS_PER_S, DELIVERIES_PER_S / watchers)
    events = turns.loads(clusters, Cell("events", words, WATCHED_CLIENTS, events=True), "--total", str(puts))
    slow = Cell("delivery", (*words, "--rate", str(rate)), WATCHED_CLIENTS, events=True)
    return {"events": events, "delivery": turns.loads(clusters, slow, "--duration", str(turns.scale.seconds))}


class _Turns:
    """Lets the clusters take turns, and says whose it is."""

    def __init__(self, curve: str, x: int, scale: Scale, say: Say) -> None:
        self.scale = scale
        self.failed: dict[str, str] = {}
        """Why a store could not be measured any more, by its name."""
        self._where = f"{curve} {x:,}"
        self._say = say

    def take(
        self, clusters: Sequence[Cluster], what: str, measure: Callable[[Cluster], dict[str, float]], rounds: int = 0
    ) -> Figures:
        """Samples by figure and peer, from as many rounds as the scale has; none of a store from where it failed on."""
        found: Figures = {}
        rounds = rounds or self.scale.rounds
        for number in range(rounds):
            for cluster in clusters:
                self._say(f"{self._where}: {what}, {cluster.peer.name}, round {number + 1} of {rounds}")
                if cluster.peer.name in self.failed:
                    continue
                try:
                    figures = measure(cluster)
                except BenchError as error:
                    self.failed[cluster.peer.name] = f"{what}: {error}"
                    continue
                for figure, value in figures.items():
                    found.setdefault(figure, {}).setdefault(cluster.peer.name, []).append(value)
        return found

    def loads(self, clusters: Sequence[Cluster], cell: Cell, *length: str) -> Figures:
        """The same of a load."""
        return self.take(clusters, cell.name, lambda cluster: asdict(cluster.load(cell, *length)))

    def fill(
        self, clusters: Sequence[Cluster], keys: int, value: tuple[str, ...] = (), clients: int = CLIENTS
    ) -> Figures:
        """Put every key once. Returns the memory right after it, in MB."""

        def one(cluster: Cluster) -> dict[str, float]:
            # Few puts in one transaction, so that the log has more than 100,000 entries of a million keys: that is
            # where etcd 3.4 takes a snapshot and forgets them.
            batch = ("--batch", "1" if value else "8")
            cell = Cell("fill", ("fill", "--key-space", str(keys), *batch, *value), clients)
            cluster.load(cell)
            return {"memory": cluster.memory().anonymous / 1e6}

        return self.take(clusters, "fill", one, rounds=1)
