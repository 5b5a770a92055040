"""fleetd is dead on one machine for 30 s: no unit moves or restarts; what ends meanwhile is told whole afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.faults.trace import StoreTrace
from tests.lab import Lab, until

pytestmark = pytest.mark.lab

DEAD_S = 30.0
WAIT_S = 90.0
LINES = [str(at) for at in range(1, 1001)]

SCRIPT = """if [ -e {notes}/%p.first ]; then echo again; exec sleep 1000000; fi; echo > {notes}/%p.first; \
until [ -e {notes}/go ]; do sleep 0.1; done; seq 1000; echo > {notes}/%p.printed; exit 7"""
LEAVING = """[Unit]
Description=Prints 1,000 lines, exits 7; the next time it stays

[Service]
ExecStart={start} '{script}'
ExecStopPost=/bin/sh -c 'echo $$SERVICE_RESULT $$EXIT_CODE $$EXIT_STATUS >> {notes}/%p.stopped'
Restart={restart}
RestartSec=1
"""
STAYING = """[Service]
ExecStart={start} 'exec sleep 1000000'
Restart=always
"""
TOGETHER = "\n[X-Fleet]\nMachineOf=plain.service\n"
SHELL = "/bin/sh -c"
BOX = "/usr/bin/docker run {options} -v {notes}:{notes} busybox /bin/sh -c"

LEAVES = {  # name -> how it is started, Restart=
    "plain": (SHELL, "on-failure"),
    "plain-once": (SHELL, "no"),
    "boxed": (BOX.replace("{options}", "--rm --name boxed"), "on-failure"),
    "boxed-once": (BOX.replace("{options}", "--name boxed-once"), "no"),
    "boxed-rm-once": (BOX.replace("{options}", "--rm --name boxed-rm-once"), "no"),
}
STAYS = {"steady": SHELL, "steady-boxed": BOX.replace("{options}", "--rm --name steady-boxed")}


@dataclass
class Story:
    """What was seen before, while and after fleetd was dead on a machine."""

    lab: Lab
    host: str
    before: dict[str, dict[str, Any]]
    dead: dict[str, dict[str, Any]] = field(default_factory=dict)
    alive_while_dead: dict[str, bool] = field(default_factory=dict)
    moved: list[str] = field(default_factory=list)

    def after(self) -> dict[str, dict[str, Any]]:
        """The units as the cluster lists them now."""
        return self.lab.units(self.host)

    def alive(self, pid: int) -> bool:
        """Whether the machine has this process."""
        return self.lab.attempt(self.host, "test", "-d", f"/proc/{pid}").returncode == 0


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with Lab("daemondead") as lab:
        lab.wait_formed()
        lab.import_busybox()
        lab.on("m1", "fleetctl", "start", *_files(lab))
        host = lab.running_on("plain.service", "m1")
        assert host is not None
        other = next(name for name in lab.names if name != host)
        found = Story(lab, host, lab.units("m1"))
        with StoreTrace(lab, other) as trace:
            lab.lab("stop-daemon", "--kill", host)
            end = time.monotonic() + DEAD_S
            (lab.notes / "go").touch()
            until("all lines printed", lambda: all((lab.notes / f"{one}.printed").exists() for one in LEAVES), WAIT_S)
            time.sleep(max(0.0, end - time.monotonic()))  # the fault itself lasts this long
            found.dead = lab.units(other)
            found.alive_while_dead = {unit: found.alive(one["main_pid"]) for unit, one in found.before.items()}
            started = time.time()
            lab.lab("start-daemon", host)
            until("every ExecStopPost", lambda: all((lab.notes / f"{one}.stopped").exists() for one in LEAVES), WAIT_S)
            print(f"\nevery ExecStopPost ran {time.time() - started:.2f} s after fleetd was started again")
            until("the restarts", lambda: all(_runs(found, one) for one in ("plain", "boxed", *STAYS)), WAIT_S)
        found.moved = [one.key for one in trace.seen if one.key.startswith("placements/")]
        found.moved += [one.key for one in trace.seen if one.key.startswith("presence/") and one.value is None]
        yield found


def _files(lab: Lab) -> list[str]:
    files = []
    for name, (start, restart) in LEAVES.items():
        text = LEAVING.replace("{script}", SCRIPT.replace("$", "$$")).replace("{start}", start)
        text = text.replace("{restart}", restart) + (TOGETHER if name != "plain" else "")
        files.append(lab.unit_file(f"{name}.service", text.replace("{notes}", str(lab.notes))))
    for name, start in STAYS.items():
        text = (STAYING.replace("{start}", start) + TOGETHER).replace("{notes}", str(lab.notes))
        files.append(lab.unit_file(f"{name}.service", text))
    return files


def _runs(story: Story, name: str) -> bool:
    found = story.after().get(f"{name}.service")
    return found is not None and (found["active"], found["sub"]) == ("active", "running")


def test_nothing_moves_or_restarts(story: Story) -> None:
    assert story.moved == [], "a placement or a presence changed"
    assert {one["machine"] for one in story.before.values()} == {one["machine"] for one in story.after().values()}
    assert story.dead.keys() == story.before.keys()
    after = story.after()
    for name in STAYS:
        unit = f"{name}.service"
        assert story.alive_while_dead[unit], f"{unit} was gone while fleetd was dead"
        for told in (story.dead, after):
            assert told[unit]["main_pid"] == story.before[unit]["main_pid"]
            assert told[unit]["since"] == story.before[unit]["since"]
        assert story.alive(after[unit]["main_pid"])


@pytest.mark.parametrize("name", LEAVES)
def test_what_ended_meanwhile_is_told_whole(story: Story, name: str) -> None:
    unit = f"{name}.service"
    assert not story.alive_while_dead[unit], f"{unit} did not end while fleetd was dead"
    said = story.lab.on(story.host, "fleetctl", "journal", "-n", "0", "--output", "cat", unit).splitlines()
    assert [line for line in said if line.isdigit()] == LINES
    assert (story.lab.notes / f"{name}.stopped").read_text().split() == ["exit-code", "exited", "7"]
    now = story.after()[unit]
    if LEAVES[name][1] == "no":
        assert (now["active"], now["result"], now["exit_status"]) == ("failed", "exit-code", 7)
        assert "again" not in said
    else:
        assert (now["active"], now["sub"]) == ("active", "running")
        assert said.count("again") == 1, "Restart=on-failure starts it once"


def test_a_docker_line_has_no_client_process(story: Story) -> None:
    find = "cd /sys/fs/cgroup; find . -path '*/fleet/*boxed*' -name cgroup.procs -exec cat {} + | sort -nu"
    pids = [int(pid) for pid in story.lab.on(story.host, "sh", "-c", find).split()]
    expected = {story.after()[f"{name}.service"]["main_pid"] for name in ("boxed", "steady-boxed")}
    assert set(pids) == expected, "only the containers' own processes are in the units' groups"
