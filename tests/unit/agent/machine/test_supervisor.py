"""The supervisor with real processes: every type of service, restarts, stops, and a fleetd that dies meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from agent.cgroups import Cgroup
from tests.unit.agent.machine.fix_machine import Machine

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="control groups need root")


def alive(pid: int | None) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


async def test_a_unit_runs_prints_and_is_taken_away(machine: Machine) -> None:
    text = "[Service]\nEnvironment=WHO=World\nExecStart=/bin/sh -c 'echo Hello $WHO %p; exec sleep 60'\n"
    text = text.replace("$WHO", "$$WHO")
    await machine.cluster.place("hello.service", text)
    state = await machine.cluster.until("hello.service", lambda s: s is not None and s.main_pid is not None)
    assert state is not None and (state.active, state.sub, state.why) == ("active", "running", "")
    assert alive(state.main_pid)
    await machine.until_lines("hello.service", ["Hello World hello"])
    await machine.cluster.take_away("hello.service")
    await machine.cluster.until("hello.service", lambda s: s is None)
    assert "hello.service" in machine.cluster.gone
    assert not alive(state.main_pid)
    assert list((machine.root / "data/units").glob("hello*")) == []
    assert not Cgroup("hello.service", root=machine.cgroups).exists()
    assert machine.lines("hello.service") == ["Hello World hello"]


async def test_dead_fleetd_misses_nothing(machine: Machine) -> None:
    go = machine.root / "go"
    text = f"""[Service]
ExecStart=/bin/sh -c 'while [ ! -e {go} ]; do sleep 0.02; done; seq 1 1000; exit 7'
ExecStopPost=/bin/sh -c 'echo post $SERVICE_RESULT $EXIT_CODE $EXIT_STATUS'
Restart=on-failure
RestartSec=3600
"""
    await machine.cluster.place("seven.service", text.replace("$", "$$"))
    await machine.cluster.until_sub("seven.service", "running")
    await machine.kill()
    go.touch()
    await asyncio.sleep(0.6)
    await machine.start()
    state = await machine.cluster.until_sub("seven.service", "auto-restart")
    assert (state.result, state.exit_status) == ("exit-code", 7)
    assert "ended with code 7" in state.why and "Restart=on-failure" in state.why
    assert machine.lines("seven.service") == [*(str(n) for n in range(1, 1001)), "post exit-code exited 7"]


async def test_a_restart_of_fleetd_disturbs_nothing(machine: Machine) -> None:
    await machine.cluster.place("still.service", "[Service]\nExecStart=/bin/sleep 60\n")
    before = await machine.cluster.until("still.service", lambda s: s is not None and s.main_pid is not None)
    await machine.kill()
    machine.cluster.reports.clear()
    machine.cluster.cut_off = True
    await machine.start()
    after = await machine.cluster.until("still.service", lambda s: s is not None and s.main_pid is not None)
    assert before is not None and after is not None
    assert (after.sub, after.main_pid) == ("running", before.main_pid)


async def test_what_ignores_sigterm_is_killed(machine: Machine) -> None:
    text = (
        "[Service]\nTimeoutStopSec=0.3\nExecStart=/bin/sh -c 'trap \"\" TERM; echo deaf; while :; do sleep 0.1; done'\n"
    )
    await machine.cluster.place("deaf.service", text)
    await machine.cluster.until_sub("deaf.service", "running")
    await machine.until_lines("deaf.service", ["deaf"])
    await machine.cluster.place("deaf.service", text, "loaded")
    state = await machine.cluster.until_sub("deaf.service", "failed")
    assert state.result == "timeout" and "TimeoutStopSec=" in state.why


async def test_a_killed_monitor_is_a_failure(machine: Machine) -> None:
    await machine.cluster.place("orphan.service", "[Service]\nExecStart=/bin/sleep 60\nRestart=on-failure\n")
    before = await machine.cluster.until("orphan.service", lambda s: s is not None and s.main_pid is not None)
    for pid in Cgroup("orphan.service/monitor", root=machine.cgroups).procs():
        os.kill(pid, signal.SIGKILL)
    assert before is not None
    after = await machine.cluster.until(
        "orphan.service", lambda s: s is not None and s.main_pid not in (None, before.main_pid)
    )
    assert after is not None and after.sub == "running"
    assert not alive(before.main_pid)
    assert "monitor-lost" in {state.result for state in machine.cluster.history}


TYPES = {
    "oneshot": ("Type=oneshot\nRemainAfterExit=yes\nExecStart=/bin/echo one\nExecStart=/bin/echo two\n", "exited"),
    "exec": ("Type=exec\nExecStart=/bin/sleep 60\n", "running"),
    "notify": (
        "Type=notify\nNotifyAccess=all\nExecStart=/usr/bin/python3 -c 'import os,socket,time; s=socket.socket(1,2);"
        ' s.sendto(b"READY=1",os.environ["NOTIFY_SOCKET"]); time.sleep(60)\'\n',
        "running",
    ),
    "forking": ("Type=forking\nPIDFile=ROOT/pid\nExecStart=/bin/sh -c 'sleep 60 & echo $$! > ROOT/pid'\n", "running"),
}


@pytest.mark.parametrize("kind", TYPES)
async def test_types(machine: Machine, kind: str) -> None:
    lines, sub = TYPES[kind]
    await machine.cluster.place("t.service", "[Service]\n" + lines.replace("ROOT", str(machine.root)))
    await machine.cluster.until_sub("t.service", sub)
    if kind == "oneshot":
        assert machine.lines("t.service") == ["one", "two"]
    if kind == "forking":
        state = await machine.cluster.until("t.service", lambda s: s is not None and s.main_pid is not None)
        assert state is not None and str(state.main_pid) == (machine.root / "pid").read_text().strip()
        os.kill(int(str(state.main_pid)), signal.SIGKILL)
        assert (await machine.cluster.until_sub("t.service", "failed")).result == "signal"


@pytest.mark.parametrize(
    ("lines", "result", "why"),
    [
        ("ExecStart=/no/such/program\n", "exit-code", "/no/such/program"),
        ("ExecStart=/bin/true\nUser=nobody-here\n", "resources", "The user 'nobody-here' (User=) does not exist"),
        ("ExecStartPre=/bin/false\nExecStart=/bin/true\n", "exit-code", "ExecStartPre=/bin/false ended with code 1."),
        ("ExecStart=/bin/true\nEnvironmentFile=/no/file\n", "resources", "/no/file (EnvironmentFile=) can't be read"),
        ("ExecStart=/usr/bin/docker run nothing:1\n", "exit-code", "There is no image 'nothing:1' here."),
        ("ExecStart=/bin/sh -c 'exit 3'\nRestart=always\nRestartSec=0\n", "start-limit-hit", "(StartLimitBurst=)"),
    ],
)
async def test_failures_say_why(machine: Machine, lines: str, result: str, why: str) -> None:
    # Starts that a busy machine makes wait count all the same.
    await machine.cluster.place("bad.service", f"[Unit]\nStartLimitIntervalSec=600\n[Service]\n{lines}")
    state = await machine.cluster.until_sub("bad.service", "failed")
    assert state.result == result and why in state.why


async def test_a_unit_with_an_environment_file_that_is_not_utf8_fails_and_can_be_stopped(machine: Machine) -> None:
    (machine.root / "env").write_bytes(b"A=\xff\n")
    text = (
        f"[Service]\nEnvironmentFile={machine.root}/env\nExecStart=/bin/sleep 60\nRestart=on-failure\nRestartSec=3600\n"
    )
    await machine.cluster.place("latin.service", text)
    state = await machine.cluster.until_sub("latin.service", "auto-restart")
    assert state.result == "resources" and "is not UTF-8" in state.why
    await machine.cluster.place("latin.service", text, "loaded")
    await machine.cluster.until("latin.service", lambda s: s is not None and s.sub in ("dead", "failed"))


async def test_a_docker_error_is_in_the_journal(machine: Machine) -> None:
    await machine.cluster.place("d.service", "[Service]\nExecStart=/usr/bin/docker run nothing:1\n")
    state = await machine.cluster.until_sub("d.service", "failed")
    assert state.exit_status == 125
    assert machine.lines("d.service") == ["docker: There is no image 'nothing:1' here."]


async def test_user_directory_and_limits(machine: Machine) -> None:
    text = """[Service]
Type=oneshot
User=nobody
WorkingDirectory=/tmp
LimitNOFILE=123
UMask=0077
ExecStart=/bin/sh -c 'id -un; pwd; ulimit -n; umask; echo $$HOME'
"""
    await machine.cluster.place("who.service", text)
    await machine.cluster.until_sub("who.service", "dead")
    await machine.until_lines("who.service", ["nobody", "/tmp", "123", "0077", "/nonexistent"])


async def test_dependencies(machine: Machine) -> None:
    db = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -c 'sleep 0.2; date +%%s%%N > ROOT/db'\n"
    web = "[Unit]\nRequires=db.service docker.service\nAfter=db.service\n[Service]\nType=oneshot\nRemainAfterExit=yes\n"
    web += "ExecStart=/bin/sh -c 'date +%%s%%N > ROOT/web'\n"
    await machine.cluster.place("web.service", web.replace("ROOT", str(machine.root)))
    state = await machine.cluster.until("web.service", lambda s: s is not None and s.why != "")
    assert state is not None and state.why == "web.service requires db.service, which is not on this machine."
    await machine.cluster.place("db.service", db.replace("ROOT", str(machine.root)), "loaded")
    await machine.cluster.until_sub("web.service", "exited")
    assert int((machine.root / "db").read_text()) < int((machine.root / "web").read_text())
    assert machine.cluster.reports["db.service"].sub == "exited"


async def test_a_changed_file_replaces_the_unit(machine: Machine) -> None:
    await machine.cluster.place("v.service", "[Service]\nExecStart=/bin/sh -c 'echo v1; exec sleep 60'\n")
    await machine.until_lines("v.service", ["v1"])
    await machine.cluster.place("v.service", "[Service]\nExecStart=/bin/sh -c 'echo v2; exec sleep 61'\n")
    await machine.cluster.until("v.service", lambda s: s is not None and s.epoch == 2 and s.sub == "running")
    await machine.until_lines("v.service", ["v1", "v2"])


async def test_a_file_that_can_not_be_read_is_reported(machine: Machine) -> None:
    await machine.cluster.place("x.service", "[Service]\nExecStart=/bin/a 'b\n")
    state = await machine.cluster.until("x.service", lambda s: s is not None)
    assert state is not None and state.load == "error" and "x.service:2:18:" in state.why


async def test_a_memory_limit_kills_and_says_so(machine: Machine) -> None:
    text = "[Service]\nMemoryMax=30M\nMemorySwapMax=0\nExecStart=/usr/bin/python3 -c 'x = bytearray(200 << 20)'\n"
    await machine.cluster.place("big.service", text)
    state = await machine.cluster.until_sub("big.service", "failed")
    assert state.result == "signal" and "(MemoryMax=)" in state.why


async def test_on_failure_and_binds_to(machine: Machine) -> None:
    mail = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/echo mail\n"
    await machine.cluster.place("mail.service", mail, "loaded")
    bound = "[Unit]\nBindsTo=main.service\nAfter=main.service\n[Service]\nExecStart=/bin/sleep 60\n"
    text = "[Unit]\nOnFailure=mail.service\n[Service]\nExecStart=/bin/sleep 60\n"
    await machine.cluster.place("main.service", text)
    state = await machine.cluster.until("main.service", lambda s: s is not None and s.main_pid is not None)
    await machine.cluster.place("bound.service", bound)
    await machine.cluster.until("bound.service", lambda s: s is not None and s.main_pid is not None)
    assert state is not None and state.main_pid is not None
    os.kill(state.main_pid, signal.SIGKILL)
    await machine.cluster.until_sub("main.service", "failed")
    await machine.cluster.until_sub("mail.service", "exited")
    after = await machine.cluster.until_sub("bound.service", "dead")
    assert after.why == "It is bound to main.service (BindsTo=), which stopped."


async def test_a_monitor_in_no_record_is_ended(machine: Machine) -> None:
    await machine.cluster.place("lost.service", "[Service]\nExecStart=/bin/sleep 60\n")
    state = await machine.cluster.until("lost.service", lambda s: s is not None and s.main_pid is not None)
    await machine.kill()
    (machine.root / "data/units/lost.service.json").unlink()
    machine.cluster.cut_off = True
    await machine.start()
    assert state is not None and not alive(state.main_pid)
    async with asyncio.timeout(60):
        while any(alive(pid) for pid in Cgroup("lost.service", root=machine.cgroups).procs()):
            await asyncio.sleep(0.02)
    assert list((machine.root / "run/monitors").iterdir()) == []


async def test_a_disk_that_was_full_does_not_end_the_restarts(machine: Machine) -> None:
    journal = machine.root / "data/journal/full.service"
    go = machine.root / "go"
    text = f"""[Unit]
StartLimitBurst=0
[Service]
ExecStart=/bin/sh -c 'test -e {go} && exec sleep 60'
Restart=on-failure
RestartSec=0.5
"""
    await machine.cluster.place("full.service", text)
    await machine.cluster.until("full.service", lambda s: s is not None and s.exit_status == 1)
    aside = journal.rename(journal.with_name("aside"))
    journal.write_text("in the way, as a full disk is")
    state = await machine.cluster.until("full.service", lambda s: s is not None and s.result == "resources")
    assert state is not None and "journal can't be written" in state.why
    journal.unlink()
    aside.rename(journal)
    go.touch()
    await machine.cluster.until("full.service", lambda s: s is not None and s.main_pid is not None)


async def test_a_process_that_was_never_made_is_no_riddle_to_a_later_fleetd(machine: Machine) -> None:
    text = "[Service]\nExecStart=/bin/sleep 60\nRestart=on-failure\nRestartSec=0.2\n"
    await machine.cluster.place("gap.service", text)
    before = await machine.cluster.until("gap.service", lambda s: s is not None and s.main_pid is not None)
    await machine.kill()
    path = machine.root / "data/units/gap.service.json"
    record = json.loads(path.read_bytes())
    path.write_text(json.dumps(record | {"processes": []}))
    await machine.start()
    old = before.main_pid if before is not None else None
    await machine.cluster.until("gap.service", lambda s: s is not None and s.main_pid not in (None, old))
    assert not alive(old)


async def test_what_runs_with_a_record_that_can_not_be_read_is_left_alone_until_it_is_stopped(machine: Machine) -> None:
    text = "[Service]\nExecStart=/bin/sleep 60\n"
    await machine.cluster.place("new.service", text)
    state = await machine.cluster.until("new.service", lambda s: s is not None and s.main_pid is not None)
    await machine.kill()
    record = machine.root / "data/units/new.service.json"
    record.write_text('{"version": 99}')
    machine.cluster.reports.clear()
    await machine.start()
    found = await machine.cluster.until("new.service", lambda s: s is not None and s.epoch == 1)
    assert found is not None and (found.load, found.active) == ("error", "active")
    assert "newer fleetd (version 99" in found.why
    assert state is not None and alive(state.main_pid) and record.exists()
    await machine.cluster.place("new.service", text, "loaded")
    await machine.cluster.until_sub("new.service", "dead")
    assert not alive(state.main_pid)
    assert record.with_name("new.service.unread").read_text() == '{"version": 99}'
    await machine.cluster.place("new.service", text)
    await machine.cluster.until("new.service", lambda s: s is not None and s.main_pid is not None)


async def test_a_unit_whose_record_can_not_be_written_runs_all_the_same_and_is_saved_later(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.unit_runner.SAVE_AGAIN_S", 0.1)
    record = machine.root / "data/units/unsaved.service.json"
    record.with_name(record.name + ".new").mkdir(parents=True)  # in the way, as a full disk is
    await machine.cluster.place("unsaved.service", "[Service]\nExecStart=/bin/sleep 60\n")
    await machine.cluster.until("unsaved.service", lambda s: s is not None and s.main_pid is not None)
    assert not record.exists()
    record.with_name(record.name + ".new").rmdir()
    async with asyncio.timeout(60):
        while not record.exists():
            await asyncio.sleep(0.02)
    assert json.loads(record.read_bytes())["state"]["sub"] == "running"
    await machine.cluster.take_away("unsaved.service")
    await machine.cluster.until("unsaved.service", lambda s: s is None)


async def test_a_monitor_that_is_slow_to_answer_does_not_cost_its_unit(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await machine.cluster.place("slow.service", "[Service]\nExecStart=/bin/sleep 60\n")
    before = await machine.cluster.until("slow.service", lambda s: s is not None and s.main_pid is not None)
    await machine.kill()
    monitors = Cgroup("slow.service/monitor", root=machine.cgroups).procs()
    for pid in monitors:
        os.kill(pid, signal.SIGSTOP)
    machine.cluster.reports.clear()
    monkeypatch.setattr("agent.monitor.link.ANSWER_TIMEOUT_S", 0.2)
    await machine.start()
    async with asyncio.timeout(60):
        while "it is asked again" not in caplog.text:
            await asyncio.sleep(0.02)
    monkeypatch.undo()
    for pid in monitors:
        os.kill(pid, signal.SIGCONT)
    after = await machine.cluster.until_sub("slow.service", "running")
    assert before is not None and after.main_pid == before.main_pid and alive(after.main_pid)
    await machine.cluster.take_away("slow.service")
    await machine.cluster.until("slow.service", lambda s: s is None)
    assert not alive(after.main_pid)


async def test_ending_what_a_lost_monitor_left_does_not_hold_the_others_up(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await machine.cluster.place("held.service", "[Service]\nExecStart=/bin/sleep 60\n")
    await machine.cluster.until("held.service", lambda s: s is not None and s.main_pid is not None)
    monkeypatch.setattr("agent.cgroups.KILL_PAUSE_S", 3.0)  # as long as a process that dies slowly would take
    for pid in Cgroup("held.service/monitor", root=machine.cgroups).procs():
        os.kill(pid, signal.SIGKILL)
    ended = asyncio.create_task(machine.cluster.until_sub("held.service", "failed"))
    longest = 0.0
    while not ended.done():
        begin = asyncio.get_running_loop().time()
        await asyncio.sleep(0.02)
        longest = max(longest, asyncio.get_running_loop().time() - begin)
    assert (await ended).result == "monitor-lost" and longest < 2.5


async def test_what_ran_with_a_record_that_can_not_be_read_starts_anew_when_it_ended(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.adopt.LOOK_S", 0.1)
    await machine.cluster.place("odd.service", "[Service]\nExecStart=/bin/sleep 60\n")
    before = await machine.cluster.until("odd.service", lambda s: s is not None and s.main_pid is not None)
    await machine.kill()
    (machine.root / "data/units/odd.service.json").write_text("{")
    machine.cluster.reports.clear()
    await machine.start()
    await machine.cluster.until("odd.service", lambda s: s is not None and s.load == "error")
    assert before is not None and before.main_pid is not None
    os.kill(before.main_pid, signal.SIGKILL)
    after = await machine.cluster.until("odd.service", lambda s: s is not None and s.main_pid is not None)
    assert after is not None and (after.load, after.sub) == ("loaded", "running")
