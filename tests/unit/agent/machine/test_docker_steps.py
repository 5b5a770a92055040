"""Docker lines in units: how long a step lasts, what it ends with, what a dead fleetd leaves. Containers are played."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.agent.machine.fix_machine import Machine

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="control groups need root")

HELLO = """[Unit]
Description=HelloService
Requires=docker.service
After=docker.service

[Service]
ExecStart=/usr/bin/docker run busybox \\
 /bin/sh -c "while true; do echo Hello World; sleep 1; done"

[Install]
WantedBy=multi-user.target
"""


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    here = Machine(tmp_path)
    here.containers.images.add("busybox")
    await here.start()
    yield here
    await here.clean()


async def asked(machine: Machine, what: str) -> None:
    async with asyncio.timeout(60):
        while what not in machine.containers.asked:
            await asyncio.sleep(0.01)


async def test_the_papers_unit_runs_as_printed_and_stops_by_wish(machine: Machine) -> None:
    await machine.cluster.place("hello.service", HELLO)
    state = await machine.cluster.until("hello.service", lambda s: s is not None and s.main_pid is not None)
    assert state is not None and state.sub == "running"
    made = machine.containers.made["c1"]
    assert made.unit == "hello.service" and made.options.image == "busybox"
    assert made.options.command == ("/bin/sh", "-c", "while true; do echo Hello World; sleep 1; done")
    assert made.cgroup_parent.endswith("/hello.service/payload")
    assert made.log_dir.parent == machine.root / "data/journal/hello.service"
    await machine.cluster.place("hello.service", HELLO, "loaded")
    state = await machine.cluster.until_sub("hello.service", "dead")
    assert state.result == "success"
    assert "signal c1 None" in machine.containers.asked


async def test_the_end_of_a_container_is_an_exit(machine: Machine) -> None:
    text = "[Service]\nExecStart=docker run --rm busybox false\nRestart=on-failure\nRestartSec=1\n"
    await machine.cluster.place("e.service", text)
    await asked(machine, "start c1")
    machine.containers.end("c1", 3)
    state = await machine.cluster.until_sub("e.service", "auto-restart")
    assert (state.result, state.exit_status) == ("exit-code", 3)
    assert "remove c1" in machine.containers.asked
    await asked(machine, "start c1")
    await machine.cluster.until_sub("e.service", "running")


async def test_only_the_last_unnamed_container_is_kept(machine: Machine) -> None:
    text = "[Unit]\nStartLimitBurst=0\n[Service]\nExecStart=docker run busybox true\nRestart=always\nRestartSec=0\n"
    await machine.cluster.place("k.service", text)
    for number in (1, 2):
        await asked(machine, f"start c{number}")
        machine.containers.end(f"c{number}", 0)
    await asked(machine, "remove c1")
    assert "c2" in machine.containers.made


async def ended_once(machine: Machine) -> None:
    await machine.cluster.place("k.service", "[Service]\nExecStart=docker run busybox true\n")
    await asked(machine, "start c1")
    machine.containers.end("c1", 0)
    await machine.cluster.until_sub("k.service", "dead")


async def test_a_unit_that_leaves_takes_its_last_container_along(machine: Machine) -> None:
    await ended_once(machine)
    assert "c1" in machine.containers.made
    await machine.cluster.take_away("k.service")
    await machine.cluster.until("k.service", lambda s: s is None)
    assert machine.containers.made == {}


@pytest.mark.parametrize("moved", [True, False])
async def test_after_a_reboot_the_last_container_stays_as_long_as_its_unit(machine: Machine, moved: bool) -> None:
    await ended_once(machine)
    await machine.kill()
    machine.boot = "boot-2"
    if moved:
        await machine.cluster.take_away("k.service")
    await machine.start()
    await machine.cluster.place("other.service", "[Service]\nExecStart=/bin/sleep 600\n")
    await machine.cluster.until_sub("other.service", "running")
    if moved:
        assert machine.containers.made == {}
        return
    await asked(machine, "start c2")
    await asked(machine, "remove c1")


async def test_a_pull_is_outside_the_start_timeout(machine: Machine) -> None:
    machine.containers.pull.clear()
    text = "[Service]\nType=oneshot\nTimeoutStartSec=2\nRemainAfterExit=yes\nExecStart=docker run -d --name x busybox\n"
    await machine.cluster.place("p.service", text)
    await asked(machine, "fetch busybox missing")
    await asyncio.sleep(2.3)
    machine.containers.pull.set()
    await machine.cluster.until_sub("p.service", "exited")
    assert machine.containers.made["c1"].cgroup_parent == ""


async def test_a_restart_of_fleetd_finds_the_container_again(machine: Machine) -> None:
    await machine.cluster.place("r.service", HELLO)
    await machine.cluster.until("r.service", lambda s: s is not None and s.main_pid is not None)
    await machine.kill()
    machine.containers.end("c1", 7)
    await machine.start()
    state = await machine.cluster.until_sub("r.service", "failed")
    assert (state.result, state.exit_status) == ("exit-code", 7)
    assert [one for one in machine.containers.asked if one.startswith("start")] == ["start c1"]


async def test_other_verbs_and_their_codes(machine: Machine) -> None:
    text = """[Service]
Type=oneshot
RemainAfterExit=yes
ExecStartPre=-/usr/bin/docker kill web
ExecStartPre=-/usr/bin/docker rm web
ExecStartPre=/usr/bin/docker pull busybox
ExecStart=/usr/bin/docker run -d --name web -e A -e B=2 busybox
Environment=A=1
ExecStop=/usr/bin/docker stop -t 3 web
"""
    await machine.cluster.place("v.service", text)
    await machine.cluster.until_sub("v.service", "exited")
    assert machine.containers.made["c1"].options.env == (("A", "1"), ("B", "2"))
    await machine.cluster.place("v.service", text, "loaded")
    await machine.cluster.until_sub("v.service", "dead")
    assert machine.containers.asked == [
        "fetch busybox always",
        "fetch busybox missing",
        "create c1",
        "start c1",
        "stop c1 3.0",
    ]


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left"), ValueError("odd"), TimeoutError()])
async def test_no_failure_of_whatever_kind_leaves_a_unit_active(machine: Machine, failure: Exception) -> None:
    machine.containers.failure = failure
    await machine.cluster.place("f.service", "[Service]\nExecStart=docker run busybox\n")
    state = await machine.cluster.until_sub("f.service", "failed")
    assert state.exit_status == 125
    assert machine.lines("f.service") == [f"docker: {str(failure) or 'TimeoutError'}"]


async def test_a_note_that_can_not_be_written_changes_nothing(machine: Machine) -> None:
    machine.containers.pull.clear()
    machine.containers.failure = OSError(errno.ENOSPC, "No space left on device")
    await machine.cluster.place("n.service", "[Service]\nExecStart=docker run busybox\n")
    await asked(machine, "fetch busybox missing")
    for folder in (machine.root / "data/journal/n.service").iterdir():
        folder.rmdir()
        folder.write_text("in the way")
    machine.containers.pull.set()
    state = await machine.cluster.until_sub("n.service", "failed")
    assert state.exit_status == 125 and "No space left on device" in state.why


async def test_an_env_file_that_is_not_utf8_is_named(machine: Machine) -> None:
    (machine.root / "env").write_bytes(b"A=\xff\n")
    await machine.cluster.place("u.service", f"[Service]\nExecStart=docker run --env-file {machine.root}/env busybox\n")
    state = await machine.cluster.until_sub("u.service", "failed")
    assert state.exit_status == 125 and "is not UTF-8" in state.why


async def test_a_flag_may_have_its_value_from_a_variable(machine: Machine) -> None:
    text = "[Service]\nEnvironment=M=64m\nExecStart=docker run --memory ${M} busybox\n"
    await machine.cluster.place("m.service", text)
    await machine.cluster.until("m.service", lambda s: s is not None and s.main_pid is not None)
    assert machine.containers.made["c1"].options.memory == 64 << 20
    await machine.cluster.place("m.service", text.replace("64m", "lots"))
    state = await machine.cluster.until_sub("m.service", "failed")
    assert state.exit_status == 125 and "'lots' is not a size" in state.why


async def test_a_stop_while_a_container_is_launched_is_not_lost(machine: Machine) -> None:
    machine.containers.launch.clear()
    await machine.cluster.place("l.service", HELLO)
    await asked(machine, "start c1")
    await machine.cluster.place("l.service", HELLO, "loaded")
    await machine.cluster.until_sub("l.service", "stop-sigterm")
    machine.containers.launch.set()
    state = await machine.cluster.until_sub("l.service", "dead")
    assert state.result == "success" and "signal c1 None" in machine.containers.asked
