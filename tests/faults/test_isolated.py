"""StopWhenIsolated= on real machines: such a unit never runs twice, whether fleetd of the cut machine lives or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.reality import Clock, names, running
from tests.lab import PATIENCE_S, Lab, until

pytestmark = pytest.mark.lab

ISOLATED_S = 4
STOP_S = 2
MOVED_TIMEOUT_S = 120.0
BEAT = "read up rest < /proc/uptime; echo $$up $$(cat /etc/machine-id) >> {notes}; sleep 0.1"
BOX_BEAT = "read up rest < /proc/uptime; echo $$up $$HOSTNAME_OF >> /notes/box.beats; sleep 0.1"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab("labonce") as made:
        made.wait_formed()
        made.import_busybox()
        yield made


def unit(lab: Lab, name: str, command: str) -> str:
    return lab.unit_file(
        f"{name}.service",
        f"[Service]\nTimeoutStopSec={STOP_S}\nRestart=always\nExecStart={command}\n"
        f"[X-Fleet]\nStopWhenIsolated={ISOLATED_S}\n",
    )


def beats(lab: Lab, name: str) -> dict[str, list[float]]:
    """Machine -> when the unit's process there showed that it runs, in seconds since the host's boot."""
    notes = lab.notes / f"{name}.beats"
    found: dict[str, list[float]] = {}
    for line in notes.read_text().splitlines() if notes.exists() else ():
        words = line.split()
        if len(words) == 2:
            found.setdefault(names(lab)[words[1]], []).append(float(words[0]))
    return found


def moved(lab: Lab, name: str, cut: str, clock: Clock) -> str:
    """Wait until the unit beats on another machine than `cut`; where. Prints how far apart the two were."""
    before = set(beats(lab, name)) - {cut}
    known = {machine: len(at) for machine, at in beats(lab, name).items()}

    def beating() -> str:
        return next((m for m, at in beats(lab, name).items() if m != cut and len(at) > known.get(m, 0)), "")

    there = until(f"{name} beating elsewhere than on {cut}", beating, MOVED_TIMEOUT_S)
    first = beats(lab, name)[there][known.get(there, 0)]
    last = beats(lab, name)[cut][-1]
    clock.say(f"{name} runs on {there}, {first - last:.1f} s after its last sign on {cut}")
    assert first > last, f"{name} ran on {cut} and {there} at once"
    assert there not in before or there != cut
    return there


def settled(lab: Lab, name: str, there: str, cut: str) -> None:
    """After a heal: only the new place beats."""
    until(f"{name} listed on {there}", lambda: running(lab, cut).get(f"{name}.service") == there, PATIENCE_S)
    ends = len(beats(lab, name)[cut])
    more = len(beats(lab, name)[there]) + 20
    until(f"{name} beating on", lambda: len(beats(lab, name)[there]) > more, PATIENCE_S)
    assert len(beats(lab, name)[cut]) == ends, f"{name} started again on {cut}"


def place_of(lab: Lab, name: str) -> str:
    return str(until(f"{name} running", lambda: running(lab, "m1").get(f"{name}.service"), PATIENCE_S))


def test_without_fleetd_the_monitor_ends_it_before_it_runs_elsewhere(lab: Lab) -> None:
    loop = BEAT.format(notes=lab.notes / "once.beats")
    lab.on("m1", "fleetctl", "start", unit(lab, "once", f"/bin/sh -c 'trap \"\" TERM; while :; do {loop}; done'"))
    cut = place_of(lab, "once")
    until("a beat", lambda: beats(lab, "once").get(cut), PATIENCE_S)
    lab.lab("stop-daemon", cut, "--kill")
    clock = Clock()
    lab.lab("partition", cut)
    there = moved(lab, "once", cut, clock)
    lab.lab("heal", cut)
    lab.lab("start-daemon", cut)
    settled(lab, "once", there, cut)


def test_a_container_is_ended_too(lab: Lab) -> None:
    line = f"/usr/bin/docker run --rm --name box -v {lab.notes}:/notes -e HOSTNAME_OF=%m busybox sh -c '{{}}'"
    command = line.format(f"while :; do {BOX_BEAT}; done")
    lab.on("m1", "fleetctl", "start", unit(lab, "box", command))
    cut = place_of(lab, "box")
    until("a beat", lambda: beats(lab, "box").get(cut), PATIENCE_S)
    clock = Clock()
    lab.lab("partition", cut)
    there = moved(lab, "box", cut, clock)
    lab.lab("heal", cut)
    settled(lab, "box", there, cut)


def test_a_short_isolation_only_stops_it_for_a_while(lab: Lab) -> None:
    here = place_of(lab, "once")
    clock = Clock()
    lab.lab("partition", here)

    def silent() -> bool:
        return float(Path("/proc/uptime").read_text().split()[0]) - beats(lab, "once")[here][-1] > 1.0

    until("the end of its beats", silent, PATIENCE_S)
    clock.say(f"once has ended on {here}")
    lab.lab("heal", here)
    count = len(beats(lab, "once")[here])
    until("its beats again", lambda: sum(map(len, beats(lab, "once").values())) > count + 10, PATIENCE_S)
    place = place_of(lab, "once")
    clock.say(f"once runs again, on {place}")
