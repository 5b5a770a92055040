"""Faults around containers: who waits is told of a failed start and of an end that meets an error; a long log fits.

Real runc, real errors.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.parse
from pathlib import Path

import pytest

from tests.conformance.containers import Machine, ask, requires
from tests.lab import until

pytestmark = [*requires, pytest.mark.usefixtures("nothing_left")]
RECORD_BYTES, RECORDS = 16_000, 4_000


def peak_bytes(machine: Machine) -> int:
    """The most memory that the API's process ever had."""
    text = Path(f"/proc/{machine.process.pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("VmHWM:"))


def in_the_way(machine: Machine, container: str) -> Path:
    """A folder that no record of this container can be written over: every save fails with an OSError."""
    place = machine.place / "data" / "containers" / container / "record.new"
    place.mkdir()
    return place


def rules(machine: Machine) -> str:
    """The packet rules of its network namespace."""
    command = ("nsenter", f"--net=/run/netns/{machine.namespace}", "nft", "list", "ruleset")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("--cgroup-parent=a//b", "can't name a control group"),
        ("--cgroup-parent=../b", "can't name a control group"),
        ("--security-opt=seccomp=/etc/passwd", "The seccomp profile /etc/passwd can't be read"),
        ("--workdir=/bin/sh/x", "busybox/x: Not a directory"),
    ],
)
def test_what_can_not_start_says_why_and_ends_as_dockers_client(machine: Machine, option: str, reason: str) -> None:
    done = machine.dock("run", "--rm", option, "busybox", "true")
    assert done.returncode == 125 and reason in done.stderr
    assert machine.dock("ps", "-aq").stdout == ""


def test_an_end_that_can_not_be_saved_is_told_all_the_same(machine: Machine) -> None:
    container = machine.dock("run", "-d", "--network=none", "busybox", "sleep", "300").stdout.strip()
    place = in_the_way(machine, container)
    waiting = machine.popen("dock", "wait", container)
    assert machine.dock("kill", container).returncode == 0
    assert waiting.communicate(timeout=60)[0] == b"137\n"
    assert "Exited (137)" in machine.dock("ps", "-a").stdout
    place.rmdir()
    machine.down()
    machine.up()
    assert "Exited (137)" in machine.dock("ps", "-a").stdout, "the monitor kept its end"


def test_a_start_that_can_not_be_saved_fails_and_the_next_one_succeeds(machine: Machine) -> None:
    container = machine.dock("create", "--network=none", "busybox", "sh", "-c", "exit 7").stdout.strip()
    place = in_the_way(machine, container)
    failed = machine.dock("start", container)
    assert failed.returncode != 0 and "Is a directory" in failed.stderr and "Errno" not in failed.stderr
    place.rmdir()
    assert machine.dock("start", container).returncode == 0
    assert machine.dock("wait", container).stdout == "7\n"


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("busybox", "/no"), 127, "no such file"),
        (("busybox", "/bin"), 126, "permission denied"),
        (("--user=nobody-here", "busybox", "true"), 125, "unable to find user nobody-here"),
        (("--mount=type=bind,source=/no/such,target=/x", "busybox", "true"), 125, "bind source path does not exist"),
    ],
)
def test_a_failed_start_says_why_and_gives_back_what_it_had(
    machine: Machine, words: tuple[str, ...], code: int, reason: str
) -> None:
    for _ in range(2):
        done = machine.dock("run", "-p", "8081:80", "--ip=172.17.0.99", *words)
        assert done.returncode == code and reason in done.stderr, done.stderr
    assert not any((place / "root").is_mount() for place in (machine.place / "data" / "containers").iterdir())


@pytest.mark.parametrize("another", [True, False])
def test_what_ended_with_its_monitor_while_the_daemon_was_away_leaves_no_port_and_no_mount(
    machine: Machine, another: bool
) -> None:
    if another:
        machine.dock("run", "-d", "-p", "8082:80", "busybox", "sleep", "300")
    container = machine.dock("run", "-d", "-p", "8083:80", "busybox", "sleep", "300").stdout.strip()
    place = machine.place / "data" / "containers" / container / "root"
    first = json.loads(machine.dock("inspect", container).stdout)[0]["State"]["Pid"]
    status = Path(f"/proc/{first}/status").read_text()
    monitor = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("PPid:"))
    assert place.is_mount() and "8083" in rules(machine)
    machine.down(signal.SIGKILL)
    os.kill(first, signal.SIGKILL)
    until("its end", lambda: (machine.place / "run" / "c" / container[:24] / "exit.json").exists(), 60)
    os.kill(monitor, signal.SIGKILL)
    machine.up()
    assert "Exited (137)" in machine.dock("ps", "-a").stdout
    assert not place.is_mount() and "8083" not in rules(machine) and ("8082" in rules(machine)) == another


def test_a_failing_removal_says_why_and_can_be_tried_again(machine: Machine) -> None:
    container = machine.dock("create", "--name=kept", "busybox", "true").stdout.strip()
    place = machine.place / "data" / "containers" / ".removed" / container / "in the way"
    place.mkdir(parents=True)
    failed = machine.dock("rm", "kept")
    assert failed.returncode == 1 and "Directory not empty" in failed.stderr
    place.rmdir()
    assert machine.dock("rm", "kept").returncode == 0


def test_who_waits_for_a_next_end_does_not_take_the_last_one_from_others(machine: Machine) -> None:
    script = "test -e /ran && exit 8; touch /ran; echo once; exit 7"
    machine.dock("run", "--name=twice", "--network=none", "busybox", "sh", "-c", script)
    following = ask(machine, "POST", "/containers/twice/wait?condition=next-exit")
    logs = machine.dock("logs", "-f", "twice")
    assert (logs.returncode, logs.stdout) == (0, "once\n")
    assert machine.dock("start", "twice").returncode == 0
    assert json.loads(following.read()) == {"StatusCode": 8}


def test_who_waits_for_a_container_that_is_removed_before_it_ran_is_let_go(machine: Machine) -> None:
    machine.dock("create", "--name=never", "busybox", "true")
    following = ask(machine, "POST", "/containers/never/wait?condition=next-exit")
    assert machine.dock("rm", "never").returncode == 0
    assert json.loads(following.read()) == {"StatusCode": 0}


def test_the_last_few_are_counted_after_the_filter(machine: Machine) -> None:
    for name, label in (("one", "a=1"), ("two", "a=1"), ("three", "a=1"), ("four", "a=2")):
        machine.dock("create", f"--name={name}", f"--label={label}", "busybox", "true")
    filters = urllib.parse.quote(json.dumps({"label": ["a=1"]}))
    found = json.loads(ask(machine, "GET", f"/containers/json?limit=2&filters={filters}").read())
    assert [item["Names"] for item in found] == [["/three"], ["/two"]]
    assert len(json.loads(ask(machine, "GET", "/containers/json?limit=5").read())) == 4


def test_a_slow_disk_holds_up_nobody_else(machine: Machine) -> None:
    container = machine.dock("run", "-d", "--network=none", "busybox", "sleep", "300").stdout.strip()
    place = machine.place / "data" / "containers" / container / "record.new"
    os.mkfifo(place)  # who opens it to write waits for a reader
    waiting = ask(machine, "POST", f"/containers/{container}/wait")
    assert machine.dock("kill", container).returncode == 0
    until("its end", lambda: (machine.place / "run" / "c" / container[:24] / "exit.json").exists(), 60)
    until("it is over", lambda: "Exited (137)" in machine.dock("ps", "-a").stdout, 60)
    with place.open():
        assert json.loads(waiting.read()) == {"StatusCode": 137}
    place.unlink()


def test_a_long_log_takes_little_memory(machine: Machine) -> None:
    container = machine.dock("create", "--name=long", "busybox", "true").stdout.strip()
    place = machine.place / "data" / "containers" / container / "log"
    place.mkdir(exist_ok=True)
    line = b"2026-01-01T00:00:00.000000000Z stdout F " + b"x" * RECORD_BYTES + b"\n"
    (place / "log.1").write_bytes(line * RECORDS)
    before = peak_bytes(machine)
    stream, longest, length = ask(machine, "GET", "/containers/long/logs?stdout=1"), 0.0, 0
    while piece := stream.read(4 << 20):
        length += len(piece)
        asked = time.monotonic()
        assert ask(machine, "GET", "/_ping").read() == b"OK"
        longest = max(longest, time.monotonic() - asked)
    assert length == RECORDS * (8 + RECORD_BYTES + 1)
    print(f"the longest ping meanwhile took {longest * 1000:.0f} ms")
    assert peak_bytes(machine) - before < 32 << 20
    last = ask(machine, "GET", "/containers/long/logs?stdout=1&tail=2").read()
    assert len(last) == 2 * (8 + RECORD_BYTES + 1)
    assert ask(machine, "GET", "/containers/long/logs?stdout=1&tail=0").read() == b""


def test_waiting_ends_though_the_image_is_gone_at_the_next_start(machine: Machine) -> None:
    machine.dock("tag", "busybox", "other")
    assert machine.dock("run", "--name=old", "--network=none", "busybox", "sh", "-c", "exit 7").returncode == 7
    for name in ("other", "busybox"):
        machine.dock("rmi", "-f", name)
    assert "No such image" in machine.dock("start", "old").stderr
    assert machine.dock("wait", "old").returncode == 0
    assert machine.dock("logs", "-f", "old").returncode == 0
    machine.import_busybox()
