"""`dock` with docker's verbs on real containers: exit codes, streams, signals, and a daemon that dies meanwhile."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.conformance.containers import Machine, requires
from tests.lab import until

pytestmark = [*requires, pytest.mark.usefixtures("nothing_left")]


@pytest.mark.parametrize(
    ("words", "code", "out", "err"),
    [
        (("busybox", "sh", "-c", "echo a; echo b >&2; exit 7"), 7, "a\n", "b\n"),
        (("busybox", "no-such-program"), 127, "", "executable file not found in $PATH"),
        (("busybox", "/bin"), 126, "", "permission denied"),
        (("--no-such-flag", "busybox"), 125, "", "unknown flag: --no-such-flag"),
        (("nowhere/nothing", "true"), 125, "", "Unable to find image 'nowhere/nothing:latest' locally"),
        (
            ("-e", "A=1", "-w", "/made", "-h", "box", "busybox", "sh", "-c", "echo $A $PWD $(hostname)"),
            0,
            "1 /made box\n",
            "",
        ),
        (("--entrypoint", "echo", "busybox", "x", "y"), 0, "x y\n", ""),
        (("-u", "7:8", "busybox", "sh", "-c", "id -u; id -g"), 0, "7\n8\n", ""),
    ],
)
def test_run_ends_with_dockers_codes(machine: Machine, words: tuple[str, ...], code: int, out: str, err: str) -> None:
    done = machine.dock("run", "--rm", *words)
    assert (done.returncode, done.stdout) == (code, out), done.stderr
    assert err in done.stderr
    assert machine.dock("ps", "-aq").stdout == ""


def test_input_of_megabytes_goes_through_and_comes_back(machine: Machine) -> None:
    done = machine.dock("run", "-i", "--rm", "busybox", "cat", given=b"line\n" * 400_000)
    assert (done.returncode, len(done.stdout)) == (0, 2_000_000)


def test_signals_are_sent_on(machine: Machine) -> None:
    script = "trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 0.1; done"
    client = machine.popen("dock", "run", "--rm", "busybox", "sh", "-c", script)
    assert client.stdout is not None and client.stdout.readline() == b"ready\n"
    client.send_signal(signal.SIGTERM)
    assert client.communicate(timeout=60)[0] == b"got\n"
    assert client.returncode == 3


def test_the_life_of_a_container_by_every_verb(machine: Machine, tmp_path: Path) -> None:
    made = machine.dock("run", "-d", "--name", "one", "-l", "a=b", "busybox", "sh", "-c", "seq 5; exec sleep 300")
    assert made.returncode == 0 and len(made.stdout.strip()) == 64
    until("five lines", lambda: machine.dock("logs", "one").stdout == "1\n2\n3\n4\n5\n", 60)
    assert machine.dock("logs", "--tail", "2", "one").stdout == "4\n5\n"
    found = json.loads(machine.dock("inspect", "one").stdout)[0]
    assert (found["Id"], found["State"]["Running"], found["Config"]["Labels"]) == (
        made.stdout.strip(),
        True,
        {"a": "b"},
    )
    assert machine.dock("inspect", "-f", "{{.State.Status}}", "one").stdout == "running\n"
    taken = machine.dock("run", "--name", "one", "busybox", "true")
    assert taken.returncode == 125 and 'The container name "/one" is already in use' in taken.stderr
    refused = machine.dock("rm", "one")
    assert refused.returncode == 1 and "container is running" in refused.stderr
    follower = machine.popen("dock", "logs", "-f", "--tail", "1", "one")
    assert follower.stdout is not None and follower.stdout.readline() == b"5\n"
    waiter = machine.popen("dock", "wait", "one")
    assert machine.dock("kill", "one").stdout == "one\n"
    assert waiter.communicate(timeout=60)[0] == b"137\n"
    follower.communicate(timeout=60)
    assert "Exited (137)" in machine.dock("ps", "-a").stdout
    assert machine.dock("start", "one").stdout == "one\n"
    assert machine.dock("stop", "-t", "0", "one").returncode == 0
    assert machine.dock("rm", "one").stdout == "one\n"
    gone = machine.dock("start", "-a", "one")
    assert (gone.returncode, gone.stderr) == (1, "Error response from daemon: No such container: one\n")


def test_start_attached_ends_as_the_container_does(machine: Machine) -> None:
    assert machine.dock("create", "--name", "two", "busybox", "sh", "-c", "echo again; exit 4").returncode == 0
    for _ in range(2):
        done = machine.dock("start", "-a", "two")
        assert (done.returncode, done.stdout) == (4, "again\n")


@pytest.mark.parametrize("removed", [True, False])
def test_a_client_waits_for_a_daemon_that_was_killed(machine: Machine, tmp_path: Path, removed: bool) -> None:
    script = "echo first; until [ -e /note/go ]; do sleep 0.1; done; echo last; exit 9"
    more = ["--rm"] if removed else ["--name", "kept"]
    client = machine.popen("dock", "run", *more, "-v", f"{tmp_path}:/note", "busybox", "sh", "-c", script)
    assert client.stdout is not None and client.stdout.readline() == b"first\n"
    machine.down(signal.SIGKILL)
    if removed:
        (tmp_path / "go").touch()
    machine.up()
    (tmp_path / "go").touch()
    out, err = client.communicate(timeout=60)
    assert (client.returncode, out) == (9, b"last\n"), err
