"""The store's members killed, frozen, held up at their disks, wiped, on real machines under load: nothing is lost."""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import Lab, until
from tests.storelab import Load, Stores, said, stopped, syncs_held

pytestmark = pytest.mark.lab

ROUNDS = 20
KEPT_ENTRIES = 200
BACK_TIMEOUT_S = 90.0
SILENCE_S = 2


@pytest.fixture(scope="module")
def stores() -> Iterator[Stores]:
    with Lab("storeloss", 3, "--store-snapshot-count", str(KEPT_ENTRIES)) as lab:
        lab.wait_formed()
        yield Stores(lab)


def test_the_leaders_store_is_killed_under_load_again_and_again(stores: Stores) -> None:
    kills = []
    with Load(stores, "m1") as load:
        for _ in range(ROUNDS):
            leader = stores.calm()
            pid = stores.wait_pid(leader)
            kills.append(time.monotonic())
            os.kill(pid, signal.SIGKILL)
            stores.wait_pid(leader, other_than=pid)
        stores.calm()
    outages = [load.outage(when) for when in kills]
    print(f"\n{load.summary}, {time.monotonic() - kills[0]:.0f} s")
    print(f"without service after kill -9 of the leader, s: {' '.join(f'{one:.2f}' for one in outages)}")
    print(f"median {statistics.median(outages):.2f}, worst {max(outages):.2f}")
    for machine in stores.urls:
        load.check(machine)


def test_a_leader_without_its_followers_answers_no_linearizable_read(stores: Stores) -> None:
    leader = stores.calm()
    followers = [name for name in stores.urls if name != leader]
    said(stores.ctl(leader, "put", "alone", "before"))
    with stopped(*(stores.wait_pid(name) for name in followers)):
        for words in (["get", "alone"], ["put", "alone", "lost?"]):
            done = stores.ctl(leader, f"--command-timeout={SILENCE_S}s", *words)
            assert done.returncode != 0 and b"before" not in done.stdout, done
        assert said(stores.ctl(leader, "get", "alone", "--consistency=s")).split() == ["alone", "before"]
    stores.calm()
    for machine in stores.urls:
        assert said(stores.ctl(machine, "get", "alone", "--print-value-only")).strip() in ("before", "lost?")
        said(stores.ctl(machine, "put", f"alone/{machine}", "after"))


def test_a_leader_that_was_frozen_answers_nothing_old(stores: Stores) -> None:
    old = stores.calm()
    others = [name for name in stores.urls if name != old]
    said(stores.ctl(old, "put", "frozen", "old"))

    def written() -> bool:
        return stores.ctl(others[0], "put", "frozen", "new", at=others).returncode == 0

    # The load's readers hold open connections to each member: their reads wait in the frozen one's socket.
    with Load(stores, others[0]) as load:
        with stopped(stores.wait_pid(old)):
            until("a write without it", written, BACK_TIMEOUT_S)
            asked = stores.ctl_words(old, "--command-timeout=20s", "get", "frozen", "--print-value-only")
            reads = [stores.lab.popen(old, *asked) for _ in range(3)]
            until("reads at its door", lambda: stores.connected(old, "etcdctl") == len(reads), BACK_TIMEOUT_S)
        for read in reads:
            answer, _ = read.communicate(timeout=90)
            assert answer.decode().strip() == "new", answer
        stores.calm()
    for machine in stores.urls:
        load.check(machine)


@pytest.mark.parametrize("whose", ["leader and a follower", "both followers"])
def test_no_write_is_acknowledged_that_a_majority_has_not_synced(stores: Stores, whose: str) -> None:
    leader = stores.calm()
    first, second = (name for name in stores.urls if name != leader)
    holders = (leader, first) if "leader" in whose else (first, second)
    pids = [stores.wait_pid(name) for name in holders]
    with Load(stores, first) as load:
        with syncs_held(pids[0]):
            # By a member whose disk works: the other two are a majority, and answer for it.
            said(stores.ctl(second, "--command-timeout=20s", "put", f"one/{whose}", "x"))
        with syncs_held(*pids) as held:
            begin = time.monotonic()
            done = stores.ctl(leader, f"--command-timeout={SILENCE_S}s", "put", f"held/{whose}", "x")
            assert done.returncode != 0, done
            end = time.monotonic()
            assert all("sync" in note.read_text() for note in held), "no sync was held"
        until("a write", lambda: stores.ctl(leader, "put", f"after/{whose}", "y").returncode == 0, BACK_TIMEOUT_S)
        released = time.monotonic()
    early = [one for one in load.acknowledged if one["begin"] > begin and one["end"] < end]
    assert not early, f"acknowledged by one disk of three: {early[:3]}"
    print(f"\n{load.summary}; a write {released - end:.2f} s after the release")
    for machine in stores.urls:
        load.check(machine)
    kept = [stores.contents(machine, "held/") for machine in stores.urls]
    assert kept == kept[:1] * len(kept), "members disagree on what the held write became"
    stores.calm()


@pytest.mark.parametrize("whose", ["founder", "leader"])
def test_a_wiped_machine_comes_back_as_a_new_member_by_snapshot(stores: Stores, whose: str) -> None:
    """The founder loses its power and its disk; the leader's folder goes while fleetd runs, then fleetd restarts."""
    leader = stores.calm()
    victim = leader if whose == "leader" else stores.founder()
    asked = next(name for name in stores.urls if name != victim)
    before = {one.member for one in stores.states().values()}
    old = stores.states()[victim].member
    folder = Path(stores.lab.machine(victim)["log"]).parent / "data/store"
    with Load(stores, asked) as load:
        written = stores.entries(asked)
        if whose == "founder":
            stores.lab.lab("kill", victim)
            stores.powered()
        until("more writes than the log keeps", lambda: stores.entries(asked) > written + 2 * KEPT_ENTRIES, 180)
        shutil.rmtree(folder)
        if whose == "founder":
            stores.lab.lab("start", victim)
        else:
            os.kill(stores.wait_pid(victim), signal.SIGKILL)
            stores.lab.lab("restart-daemon", victim)
        begin = time.monotonic()
        stores.powered()

        def back() -> bool:
            found = stores.states()
            return len(found) == len(stores.urls) and found[victim].member not in before and found[victim].leader != 0

        until(f"{victim} as a new member", back, BACK_TIMEOUT_S, 0.2)
        stores.lab.wait_formed(asked)
        took = time.monotonic() - begin
    print(f"\n{victim}, the {whose}, wiped, votes again after {took:.2f} s; {load.summary}")
    revision = stores.states()[asked].revision
    for machine in stores.urls:
        load.check(machine)
    kept = [stores.contents(machine, "", revision=revision) for machine in stores.urls]
    assert len(kept[0]) > 2 * KEPT_ENTRIES and kept == kept[:1] * len(kept)
    ids = {int(line.split(",")[0], 16) for line in said(stores.ctl(asked, "member", "list")).splitlines()}
    assert old not in ids and len(ids) == len(before)
