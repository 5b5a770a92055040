"""The stock docker client on our Docker API, in a network namespace of its own."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.containers import Machine, requires, running

pytestmark = [*requires, pytest.mark.skipif(not shutil.which("docker"), reason="needs docker's client")]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with running(tmp_path) as made:
        yield made


def test_run_ends_as_the_program_does(machine: Machine) -> None:
    done = machine.docker("run", "--name", "one", "busybox", "sh", "-c", "echo a; echo b >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "a\n", "b\n")
    logs = machine.docker("logs", "one")
    assert (logs.stdout, logs.stderr) == ("a\n", "b\n")
    assert "Exited (7)" in machine.docker("ps", "-a").stdout
    assert machine.docker("rm", "one").returncode == 0
    assert machine.docker("ps", "-aq").stdout == ""


def test_input_reaches_the_program_and_its_end_too(machine: Machine) -> None:
    done = machine.docker("run", "-i", "--rm", "busybox", "cat", given="some lines\n" * 1000)
    assert (done.returncode, done.stdout) == (0, "some lines\n" * 1000)


def test_what_can_not_run_says_so_and_leaves_nothing(machine: Machine) -> None:
    done = machine.docker("run", "--rm", "busybox", "no-such-program")
    assert done.returncode == 127
    assert "no-such-program" in done.stderr
    assert machine.docker("run", "--rm", "nowhere/nothing").returncode == 125
    assert machine.docker("logs", "nobody").stderr.strip() == "Error response from daemon: No such container: nobody"
    assert machine.docker("ps", "-aq").stdout == ""


def test_a_container_outlives_its_api(machine: Machine) -> None:
    assert machine.docker("run", "-d", "--name", "long", "busybox", "sleep", "300").returncode == 0
    machine.down(signal.SIGKILL)
    machine.up()
    assert "Up " in machine.docker("ps").stdout
    assert machine.docker("kill", "long").returncode == 0
    assert machine.docker("wait", "long").stdout == "137\n"
