"""A unit whose line reaches docker through a shell, as many do, and a fleetd that is killed meanwhile."""

from __future__ import annotations

import pytest

from tests.lab import PATIENCE_S, Lab, until

pytestmark = pytest.mark.lab

UNIT = """\
[Service]
ExecStart=/bin/sh -c 'docker start -a web || exec docker run --name web -v {notes}:/notes busybox sh -c "{script}"'
ExecStopPost=/bin/sh -c 'echo $EXIT_CODE $EXIT_STATUS > {notes}/end'
"""
SCRIPT = "echo begun; until [ -e /notes/go ]; do sleep 0.1; done; echo over; exit 7"


def test_it_finds_our_docker_and_gets_the_exit_code_after_fleetd_was_killed() -> None:
    with Lab("labdock", 1) as lab:
        lab.wait_formed(count=1)
        lab.import_busybox()
        path = lab.unit_file("shell.service", UNIT.format(notes=lab.notes, script=SCRIPT))
        lab.on("m1", "fleetctl", "start", path)
        until("its output", lambda: "begun" in lab.on("m1", "fleetctl", "journal", "shell.service"), PATIENCE_S)
        lab.lab("restart-daemon", "m1")
        until("fleetd's answer", lambda: "shell.service" in lab.units("m1"), PATIENCE_S)
        assert "Up " in lab.on("m1", "dock", "ps")
        (lab.notes / "go").touch()
        end = lab.notes / "end"
        until("the unit's end", end.exists, PATIENCE_S)
        until("the exit code", lambda: end.read_text() == "exited 7\n", PATIENCE_S)
        until("its last words", lambda: "over" in lab.on("m1", "fleetctl", "journal", "shell.service"), PATIENCE_S)
