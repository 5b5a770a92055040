"""Random kills, starts and restarts under beating units: no unit runs twice. `make soak`, ROUNDS=10, SEED=1."""

from __future__ import annotations

import os
import random
import threading
from functools import partial

import pytest

from tests.faults.beats import Cluster, check
from tests.lab import Lab

ROUNDS = int(os.environ.get("ROUNDS", "10"))
SEED = int(os.environ.get("SEED", "1"))
LONGEST_PAUSE_S = 5.0
PROGRAMS = ("kvstore.pid", "fleet-presence.pid")
"""What fleetd starts again; killing it must move nothing."""

pytestmark = pytest.mark.soak


def strike(lab: Lab, generator: random.Random, victims: list[str]) -> None:
    """Cut the power of machines and switch them on again, with random other faults and pauses around that."""

    def other() -> None:
        alive = [one["name"] for one in lab.status()["machines"] if one["state"] == "on"]
        for name in generator.sample(alive, generator.randint(0, len(alive))):
            if generator.random() < 0.5:
                lab.lab("restart-daemon", name)
            else:
                record = f"/run/fleetd/{generator.choice(PROGRAMS)}"
                kill = f"kill -9 $(sed 's/.*\"pid\": \\([0-9]*\\).*/\\1/' {record})"
                lab.attempt(name, "sh", "-c", kill)

    other()
    lab.lab("kill", *victims)
    threading.Event().wait(generator.uniform(0, LONGEST_PAUSE_S))
    other()
    for name in generator.sample(victims, len(victims)):
        lab.lab("start", name)
        threading.Event().wait(generator.uniform(0, 1))
    other()


def test_nothing_runs_twice_through_random_faults() -> None:
    generator = random.Random(SEED)
    with Lab("soak") as lab:
        lab.wait_formed()
        lab.import_busybox()
        cluster = Cluster(lab, 8, 2)
        for number in range(ROUNDS):
            busy = sorted(lab.names, key=lambda name: -len(cluster.on(name)))
            victims = generator.choice((busy[:1], busy[1:2], busy[:1], generator.sample(busy, 2), busy))
            print(f"\nround {number}, seed {SEED}: {', '.join(victims)}", flush=True)
            check(cluster, tuple(victims), partial(strike, lab, generator, victims))
