"""One fail-over from the cut of a machine's power to the first line of its units elsewhere, taken apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tests.faults.trace import StoreTrace
from tests.lab import Lab, until

Case = Literal["nothing", "store", "engine", "both"]
CASES: tuple[Case, ...] = ("nothing", "store", "engine", "both")
"""What the killed machine leads."""
BOUND_S = 6.0
WAIT_S = 90.0

PLAIN = """[Unit]
Description=Writes where and when it starts

[Service]
ExecStart=/bin/sh -c 'echo %b >> {notes}/%p.%m; exec sleep 1000000'
"""
BOXED = """[Unit]
Description=The same in a container
Requires=docker.service
After=docker.service

[Service]
ExecStart=/usr/bin/docker run --rm --name %p -v {notes}:/notes busybox \\
  /bin/sh -c 'echo %b >> /notes/%p.%m; exec sleep 1000000'

[X-Fleet]
MachineOf={peer}
"""


@dataclass(frozen=True)
class Failover:
    """What was measured of one kill. Seconds, from the moment that pid 1 was gone."""

    case: Case
    victim: str
    took: dict[str, float]
    """Unit -> its first line elsewhere, by the file's time of change."""
    waits: str
    trace: str

    @property
    def worst(self) -> float:
        """The slowest unit's time."""
        return max(self.took.values())

    def __str__(self) -> str:
        units = ", ".join(f"{unit} {took:.2f}" for unit, took in sorted(self.took.items()))
        return f"{self.victim} led {self.case}: {self.worst:.2f} s ({units}); {self.waits}"


def settle(lab: Lab) -> None:
    """Wait until every machine is present and every store member answers with a leader."""

    def well() -> bool:
        found = lab.status()
        asked = found["engine_leader"]
        if not asked or (lab.store == "own" and not found["store_leader"]):
            return False
        present = lab.attempt(asked, "etcdctl", "get", "--prefix", "--keys-only", "/fleet/v1/presence/").stdout
        if lab.store == "etcd":
            return len(present.split()) == len(lab.names)
        urls = ",".join(one["client_url"] for one in found["machines"])
        health = lab.attempt(asked, "etcdctl", "--endpoints", urls, "endpoint", "health")
        return len(present.split()) == len(lab.names) and health.returncode == 0

    until("a cluster with all its machines", well, WAIT_S)


def arrange(lab: Lab, case: Case) -> str:
    """Move the store's leadership so that a machine leads just what `case` says; its name."""

    def leaders() -> tuple[str, str]:
        found = lab.status()
        return str(found["store_leader"]), str(found["engine_leader"])

    store, engine = leaders()
    other = next(name for name in lab.names if name != engine)
    if case == "both" and store != engine:
        move_store(lab, store, engine)
    elif case in ("store", "engine") and store == engine:
        move_store(lab, store, other)
    store, engine = leaders()
    victims = {
        "nothing": [name for name in lab.names if name not in (store, engine)],
        "store": [store] if store != engine else [],
        "engine": [engine] if store != engine else [],
        "both": [store] if store == engine else [],
    }[case]
    assert victims, f"{store} leads the store and {engine} the engine: none leads {case}"
    return victims[0]


def move_store(lab: Lab, leader: str, target: str) -> None:
    """Give the store's leadership to another machine, as `etcdctl move-leader` does."""
    machine_id = lab.machine(target)["machine_id"]
    member = next(one for one in lab.voters(leader) if one["name"] == machine_id)
    lab.on(leader, "etcdctl", "move-leader", format(int(member["ID"]), "x"))
    until(f"{target} leading the store", lambda: lab.status()["store_leader"] == target, WAIT_S)


def launch(lab: Lab, tag: str) -> list[str]:
    """Start a plain unit and a container unit beside it for each machine; returns the plain ones' names."""
    units: list[str] = []
    files: list[str] = []
    for at in range(1, len(lab.names) + 1):
        plain = f"plain-{tag}-{at}.service"
        units.append(plain)
        files.append(lab.unit_file(plain, PLAIN.format(notes=lab.notes)))
        files.append(lab.unit_file(f"boxed-{tag}-{at}.service", BOXED.format(notes=lab.notes, peer=plain)))
    lab.on(lab.names[0], "fleetctl", "start", *files)
    return units


def measure(lab: Lab, case: Case, tag: str) -> Failover:
    """Launch units, kill a machine that leads what `case` says, time its units' return; then start it again."""
    launch(lab, tag)
    victim = arrange(lab, case)
    asked = next(name for name in lab.names if name != victim)
    victim_id = lab.machine(victim)["machine_id"]
    mine = [unit for unit, one in lab.units(asked).items() if one["machine"] == victim_id]
    assert any(unit.startswith("plain") for unit in mine) and any(unit.startswith("boxed") for unit in mine)
    with StoreTrace(lab, asked) as trace:
        killed = lab.kill(victim)

        def all_run() -> bool:
            return all(_lines(lab, unit, victim_id) for unit in mine)

        try:
            until("a line of each unit elsewhere", all_run, WAIT_S, pause=0.02)
        except AssertionError as error:
            raise AssertionError(f"{error}; since the kill of {victim}:\n{trace.text(killed)}") from None
    took = {unit: _lines(lab, unit, victim_id)[0] - killed for unit in mine}
    found = Failover(case, victim, took, _waits(trace, victim_id, mine, killed), trace.text(killed))
    lab.lab("start", victim)
    settle(lab)
    lab.on(asked, "fleetctl", "destroy", *lab.units(asked))
    return found


def _lines(lab: Lab, unit: str, victim_id: str) -> list[float]:
    """When the unit wrote on other machines than the victim: it must do so once."""
    files = [one for one in lab.notes.glob(f"{unit.removesuffix('.service')}.*") if one.suffix != f".{victim_id}"]
    written = [one for one in files if one.suffix != ".service" and one.stat().st_size]
    assert sum(len(one.read_text().splitlines()) for one in written) < 2, f"{unit} was started twice: {written}"
    return [one.stat().st_mtime for one in written]


def _waits(trace: StoreTrace, victim_id: str, units: list[str], killed: float) -> str:
    """Each wait's end, in seconds from the kill; `-` where there was none."""
    placed = [
        at for unit in units for one in trace.seen
        if one.key.startswith("placements/") and one.key.endswith(f"/{unit}") and one.value and (at := one.at) >= killed
    ]  # fmt: skip
    ends = {
        "store elected": trace.said("the leader is another", after=killed),
        "lease expired": trace.when(f"presence/{victim_id}", after=killed, deleted=True),
        "engine led": trace.when("engine/leader", after=killed),
        "placed": max(placed, default=None),
    }
    return ", ".join(f"{what} {'-' if at is None else f'{at - killed:.2f}'}" for what, at in ends.items())
