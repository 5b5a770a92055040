"""Containers whose start fails or whose end meets a fault: everybody who waits is told. Real runc, real errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.containers import Machine, requires

pytestmark = requires


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    made = Machine(tmp_path_factory.mktemp("faults"))
    made.up()
    made.import_busybox()
    yield made
    made.remove()


@pytest.fixture(autouse=True)
def nothing_left(machine: Machine) -> Iterator[None]:
    yield
    if left := machine.dock("ps", "-aq").stdout.split():
        machine.dock("rm", "-f", *left)


def in_the_way(machine: Machine, container: str) -> Path:
    """A folder that no record of this container can be written over: every save fails with an OSError."""
    place = machine.place / "data" / "containers" / container / "record.new"
    place.mkdir()
    return place


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
    assert waiting.communicate(timeout=10)[0] == b"137\n"
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


def test_waiting_ends_though_the_image_is_gone_at_the_next_start(machine: Machine) -> None:
    machine.dock("tag", "busybox", "other")
    assert machine.dock("run", "--name=old", "--network=none", "busybox", "sh", "-c", "exit 7").returncode == 7
    for name in ("other", "busybox"):
        machine.dock("rmi", "-f", name)
    assert "No such image" in machine.dock("start", "old").stderr
    assert machine.dock("wait", "old").returncode == 0
    assert machine.dock("logs", "-f", "old").returncode == 0
    machine.import_busybox()
