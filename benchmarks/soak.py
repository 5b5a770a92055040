"""`make soak-store`, or `python -m benchmarks.soak`: whether the store stays as quick and as small as it began.

Half the top load on three members, while they are compacted, backed up and take snapshots of their own; then the same
rate on each etcd, for a while. Says for every minute how slow the slowest calls were, and in the end whether memory was
flat.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import host, peers
from benchmarks.cluster import Cell, Cluster, Sample, running
from benchmarks.peers import Peer
from benchmarks.processes import BenchError, Workspace, say
from benchmarks.table import number

MINUTE_S = 60.0
TRIAL_S = 10.0
"""How long the top load is looked for."""
MEMORY_EVERY_S, COMPACT_EVERY_S, BACKUP_EVERY_S = 2.0, 30.0, 60.0
CHORES_EVERY_S = 0.5
"""How often it is looked whether there is something to do."""
KEPT_REVISIONS = 100_000
"""History that a compaction leaves."""
KEYS = 100_000
CLIENTS = 64
GROWTH, SLACK = 1.1, 8e6
"""Memory is flat while its later median is at most this much of its earlier one, and these bytes, above it."""
WITHIN_REACH = 0.9
"""The most of its own top load that a peer is asked for; beyond it gets half of that instead."""
HEAD = f"{'minute':>6} {'puts/s':>9} {'p50 ms':>8} {'p99 ms':>8} {'p99.9 ms':>8} {'worst ms':>8} {'RssAnon MB':>10}"
QUOTA = ("--quota-backend-bytes", str(8 << 30))


@dataclass(frozen=True)
class Minute:
    """What one stretch of the load gave."""

    sample: Sample
    memory: list[float]
    """RssAnon of the largest member, in bytes, every two seconds."""


def flat(memory: Sequence[float]) -> tuple[bool, float, float]:
    """Whether memory stayed as it was once the store had warmed up; and the medians of the second and the last quarter.
    The first quarter is not looked at: caches fill."""
    quarter = len(memory) // 4
    if not quarter:
        return False, 0.0, 0.0
    early, late = statistics.median(memory[quarter : 2 * quarter]), statistics.median(memory[-quarter:])
    return late <= early * GROWTH + SLACK, early, late


def stretches(seconds: float) -> list[float]:
    """A time in minutes, and what is left of one."""
    whole, rest = divmod(seconds, MINUTE_S)
    return [MINUTE_S] * int(whole) + ([rest] if rest >= 1 or not whole else [])


class Chores:
    """Looks at the memory in one thread, compacts and saves snapshots in another: memory while that goes on counts."""

    def __init__(self, cluster: Cluster, place: Path) -> None:
        self._cluster = cluster
        self._backup = place / "backup.db"
        self._over = threading.Event()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._look, self._work)]
        self._memory: list[float] = []
        self.compactions = 0
        self.backups = 0
        self.failed: BenchError | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """While it goes on."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join()

    def memory(self) -> list[float]:
        """What was seen since this was asked last."""
        seen, self._memory = self._memory, []
        return seen

    def _look(self) -> None:
        try:
            while not self._over.wait(MEMORY_EVERY_S):
                for member in self._cluster.members:
                    member.check()
                self._memory.append(float(max(member.memory().anonymous for member in self._cluster.members)))
        except BenchError as error:
            self.failed = error

    def _work(self) -> None:
        compact, backup = time.monotonic() + COMPACT_EVERY_S, time.monotonic() + BACKUP_EVERY_S / 2
        try:
            while not self._over.wait(CHORES_EVERY_S):
                if time.monotonic() >= compact:
                    compact += COMPACT_EVERY_S
                    self._compact()
                if time.monotonic() >= backup:
                    backup += BACKUP_EVERY_S
                    self._cluster.kvctl("snapshot", "save", str(self._backup))
                    self.backups += 1
        except BenchError as error:
            self.failed = error

    def _compact(self) -> None:
        told = json.loads(self._cluster.kvctl("get", "x", "--write-out", "json"))
        revision = int(told["header"]["revision"]) - KEPT_REVISIONS
        if revision > 0:
            self._cluster.kvctl("compact", str(revision))
            self.compactions += 1


def soak(peer: Peer, place: Path, seconds: float, rate: float | None) -> tuple[float, list[Minute]]:
    """Load a fresh cluster of the peer. Returns the rate, in calls a second, and what each minute gave. The rate is
    half the top load without one given, or where that is out of reach. Raises BenchError."""
    with running([peer], 3, place, QUOTA) as [cluster]:
        puts = ("put", "--key-space", str(KEYS))
        cluster.load(Cell("fill", ("fill", "--key-space", str(KEYS)), CLIENTS))
        say(f"{peer.name}: its top load")
        top = cluster.load(Cell("put", puts, CLIENTS), "--duration", str(min(TRIAL_S, seconds))).rate
        if rate is None or rate > top * WITHIN_REACH:
            rate = top / 2
        print(f"\n{peer.name}: {number(rate)} puts a second; its top load is {number(top)}")
        print(HEAD, flush=True)
        chores, minutes = Chores(cluster, place), []
        with chores.running():
            for at, length in enumerate(stretches(seconds)):
                say(f"{peer.name}: minute {at + 1}")
                cell = Cell("put", (*puts, "--rate", str(rate)), CLIENTS)
                minutes.append(Minute(cluster.load(cell, "--duration", str(length)), chores.memory()))
                if chores.failed:
                    raise chores.failed
                say("")
                print(_line(at + 1, minutes[-1]), flush=True)
        print(f"{chores.compactions} compactions, {chores.backups} backups")
    return rate, minutes


def _line(at: int, minute: Minute) -> str:
    sample, memory = minute.sample, statistics.median(minute.memory) / 1e6 if minute.memory else 0.0
    times = " ".join(f"{number(value):>8}" for value in (sample.p50, sample.p99, sample.p999, sample.slowest))
    return f"{at:>6} {number(sample.rate):>9} {times} {number(memory):>10}"


def verdict(name: str, minutes: Sequence[Minute]) -> tuple[bool, str]:
    """Whether memory was flat, and a sentence about it and the slowest calls."""
    good, early, late = flat([seen for minute in minutes for seen in minute.memory])
    slow = [minute.sample.p999 for minute in minutes]
    return good, (
        f"{name}: memory was {'flat' if good else 'NOT flat'} ({number(early / 1e6)} MB in the second quarter, "
        f"{number(late / 1e6)} in the last); p99.9 of a minute: median {number(statistics.median(slow))} ms, "
        f"worst {number(max(slow))}; the slowest call of all {number(max(one.sample.slowest for one in minutes))}"
    )


def main() -> int:
    """Soak. Returns 0, or 1 when our memory was not flat or something failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800.0, help="how long our store is loaded (default: 1800)")
    parser.add_argument("--beside", type=float, help="how long each etcd is loaded (default: a sixth; 0: not at all)")
    parser.add_argument("--rate", type=float, help="puts a second (default: half of what ours can)")
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="where data lies; must be a real disk")
    parser.add_argument("--no-newest", action="store_true", help="leave the newest etcd out, and do not build it")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    beside = given.seconds / 6 if given.beside is None else given.beside
    compared, notes = peers.find(not given.no_newest) if beside else ([peers.ours()], [])
    about = {**host.about(), "processors": str(host.busy())}
    print("; ".join(f"{name} {value}" for name, value in about.items()), *notes, sep="\n", flush=True)
    rate: float | None = given.rate
    told, good = [], True
    try:
        for peer in compared:
            ours = peer == compared[0]
            with Workspace(given.dir) as place:
                found, minutes = soak(peer, place, given.seconds if ours else beside, rate)
            was_flat, text = verdict(peer.name, minutes)
            told.append(text)
            if ours:
                rate, good = found, was_flat
    except BenchError as error:
        good = False
        told.append(str(error))
    except KeyboardInterrupt:
        good = False
        told.append("Interrupted; what was measured until then is above.")
    finally:
        say("")
    print("", *told, sep="\n")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
