"""One run: members, clients, faults, and the verdict. `python -m tests.linear.run --help`.

It begins in a network namespace that `apart` makes for it. The seed is printed first. All that happened stays in the
directory: `history.jsonl` (`python -m tests.linear.run --again FILE` judges it again), the members' logs and data.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from cli.lab import switch
from kvstore.client import Client
from tests.conformance.members import OURS, ROOT
from tests.disk.mounted import missing
from tests.linear import clock, history, leases
from tests.linear.faults import Faults
from tests.linear.history import Change, History
from tests.linear.judge import judge
from tests.linear.leases import Leases
from tests.linear.load import PREFIX, Load, log_of
from tests.linear.world import LEASH, World
from tests.unit.kvstore.members import hash_kv

FINAL_S = 30.0
LATE_S = 2.0
"""A lease ends at most so long after its TTL while a leader stays; on two busy cores."""
MIN_RATE = 20.0
"""Answered operations for each second that a run is to last: fewer prove nothing."""
LONGEST = 3
"""A run lasts so many times as long at most."""
TRIES = 3
TOO_BUSY = 3
"""Exit code when all that is wrong is time: a lease that ended late, a leader that lost its lead, few answers."""


@contextlib.contextmanager
def apart(lab: str) -> Iterator[tuple[str, ...]]:
    """A switch of a run's own; yields what to put before its command."""
    switch.make(lab)
    try:
        yield (*LEASH, "nsenter", f"--net={switch.NETNS_DIR / switch.netns_name(lab)}")
    finally:
        switch.remove(lab)


def run_apart(
    directory: Path, seed: int, seconds: float, command: Sequence[str] = OURS, only_clocks: bool = False
) -> subprocess.CompletedProcess[str]:
    """Do a run in a process and namespace of its own; its exit code is 0 when nothing is wrong."""
    lab = f"lin{seed % 1000}-{time.monotonic_ns() % 10**9}"
    with apart(lab) as before:
        words = ["--lab", lab, "--seed", str(seed), "--seconds", str(seconds), "--directory", str(directory)]
        words += ["--only-clocks"] if only_clocks else []
        return subprocess.run(
            [*before, sys.executable, "-m", "tests.linear.run", *words, "--", *command],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds + 240,
        )


def elections(world: World) -> dict[str, int]:
    """How many changes of the leader each member has seen."""
    return {name: one.metric("etcd_server_leader_changes_seen_total") for name, one in world.members.items()}


async def play(world: World, seed: int, seconds: float, only_clocks: bool) -> tuple[History, list[str], list[str]]:
    """Clients and watchers under faults; what they saw, what is wrong besides, and what took too long."""
    load, holders = Load(world.urls, seed), Leases(world.urls, seed)
    before = elections(world)
    faults = Faults(world, load, seed)
    known: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    urls = list(world.urls.values())
    async with asyncio.TaskGroup() as tasks:
        for name, url in world.urls.items():
            tasks.create_task(load.watch(f"at {name}", [url], known))
        tasks.create_task(load.watch("at any", urls, known))
        working = [tasks.create_task(load.run()), tasks.create_task(holders.run())]
        begun = time.monotonic()
        await faults.run(seconds, only_clocks)
        # A busy machine answers fewer: it takes longer for as many.
        while load.answered < MIN_RATE * seconds and time.monotonic() - begun < LONGEST * seconds:
            await faults.run(seconds / 3, only_clocks)
        wrong = [f"{name} has ended by itself" for name in faults.alive()]
        await asyncio.to_thread(world.ready)
        late = []
        if only_clocks:
            late += leases.check(holders.held, LATE_S)
            if elections(world) != before:
                late.append(f"the leader changed: {before}, then {elections(world)}")
        load.stopping = holders.stopping = True
        await asyncio.gather(*working)
        async with Client(urls, timeout=FINAL_S) as client:
            revision = (await client.get(PREFIX)).header.revision
        known.set_result(revision)
    logs: dict[str, tuple[Change, ...]] = {}
    for name, url in world.urls.items():
        logs[name] = await log_of(url, revision)
    async with Client(urls, timeout=FINAL_S) as client:
        hashes = {name: (await hash_kv(client, url, revision))["hash"] for name, url in world.urls.items()}
    if len(set(hashes.values())) != 1:
        wrong.append(f"members' hashes of revision {revision} differ: {hashes}")
    watched = {name: tuple(changes) for name, changes in load.watched.items()}
    print(f"errors: {load.errors}")
    if load.answered < MIN_RATE * seconds:
        late.append(f"only {load.answered} operations were answered")
    seen = History(tuple(load.operations), watched, logs, tuple(faults.deaths), revision, tuple(holders.held))
    return seen, wrong, late


def figures(seen: History, seconds: float) -> str:
    """How much there was to check."""
    outcomes = Counter(one.outcome for one in seen.operations)
    kinds = Counter(one.kind for one in seen.operations if one.outcome == "ok")
    parts = [", ".join(f"{count} {word}" for word, count in counts.most_common()) for counts in (outcomes, kinds)]
    ends = sorted(one.ended - one.touched - one.ttl * leases.SECOND for one in seen.leases if one.ended)
    late = f", the last of them {ends[-1] / leases.SECOND:.2f} s after its TTL" if ends else ""
    parts[1] += f"; {len(ends)} leases ended{late}"
    return f"{len(seen.operations)} operations in {seconds:.0f} s: {parts[0]}; answered: {parts[1]}"


def once(
    directory: Path, lab: str, seed: int, seconds: float, command: Sequence[str], only_clocks: bool = False
) -> int:
    """A run; returns the exit code."""
    print(f"seed {seed}", f"no loss of power: {missing()}" if missing() else "", flush=True)
    if clock.missing():
        print(f"no clock jumps: {clock.missing()}", flush=True)
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        print(f"{directory} has something in it: members would find the data of an earlier run")
        return 2
    world = World(directory, lab, command)
    try:
        world.wire()
        world.start()
        world.ready()
        began = time.monotonic()
        seen, wrong, late = asyncio.run(play(world, seed, seconds, only_clocks))
        took = time.monotonic() - began
    finally:
        world.close()
    print(figures(seen, took), f"revision {seen.until}", sep="\n", flush=True)
    history.save(seen, directory / "history.jsonl")
    return tell(seen, wrong, late)


def tell(seen: History, wrong: Sequence[str] = (), late: Sequence[str] = ()) -> int:
    """Print the verdict; returns the exit code."""
    began = time.monotonic()
    found = [*wrong, *judge(seen).wrong]
    print(*(found or ["linearizable"]), *late, sep="\n")
    print(f"judged in {time.monotonic() - began:.1f} s", flush=True)
    return 1 if found else TOO_BUSY if late else 0


def run_patiently(directory: Path, seed: int, seconds: float, only_clocks: bool = False) -> tuple[int, str]:
    """Do a run, again where only time was wrong, which a busy machine explains once and a broken store each time.

    Returns the last one's exit code, and what all of them printed.
    """
    printed = ""
    for turn in range(TRIES):
        done = run_apart(directory / str(turn), seed + turn, seconds, only_clocks=only_clocks)
        printed += done.stdout
        if done.returncode != TOO_BUSY:
            break
    return done.returncode, printed


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--again", type=Path, help="a history to judge again")
    parser.add_argument("--lab", default="", help="the switch in whose namespace this runs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp/fleetd-linear"))
    parser.add_argument("--only-clocks", action="store_true", help="no faults but clocks that are set")
    parser.add_argument("command", nargs="*", default=list(OURS))
    words = parser.parse_args()
    if words.again:
        return tell(history.load(words.again))
    if not words.lab:
        done = run_apart(words.directory, words.seed, words.seconds, words.command, words.only_clocks)
        print(done.stdout, end="")
        return done.returncode
    return once(words.directory, words.lab, words.seed, words.seconds, words.command, words.only_clocks)


if __name__ == "__main__":
    sys.exit(main())
