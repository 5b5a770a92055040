"""fleet-monitor with real processes, by way of its link."""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent import filelimit
from agent.cgroups import Cgroup
from agent.monitor import logfile
from agent.monitor.link import (
    ANSWER_TIMEOUT_S,
    LINE_LIMIT_BYTES,
    Command,
    Exited,
    Forked,
    Link,
    MainPid,
    MonitorError,
    MonitorLost,
    MonitorSilent,
    MonitorSpec,
    Notify,
    Started,
    connect,
    read_exit,
    spawn,
)

PATIENCE_S = 60.0
STALLED_CLIENT_S = 30.0
"""After which the monitor drops a client; see `control.rs`."""
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


@pytest.fixture
async def links() -> AsyncIterator[list[Link]]:
    """Monitors to end and forget after the test."""
    made: list[Link] = []
    yield made
    for link in made:
        try:
            again = await connect(link.run_dir)
        except MonitorLost:
            continue
        await again.kill()
        await again.wait()
        await again.forget()
        await link.close()


@pytest.fixture
def group(links: list[Link]) -> Iterator[Cgroup]:
    """A control group for a payload; emptied and removed after the test."""
    if os.geteuid() != 0:
        pytest.skip("needs root to make control groups")
    made = Cgroup.create(f"test-monitor-{os.getpid()}/payload")
    yield made
    made.kill()
    Cgroup(made.name.split("/")[0]).remove()


def shell(tmp_path: Path, script: str, **more: object) -> MonitorSpec:
    command = Command(("sh", "-c", script), env={"PATH": PATH})
    spec = MonitorSpec("test", tmp_path / "run", tmp_path / "log", command)
    return replace(spec, **more)  # type: ignore[arg-type]


def texts(tmp_path: Path, stream: str = "stdout") -> list[str]:
    return [entry.text.decode() for entry in logfile.read(tmp_path / "log") if entry.stream == stream]


async def test_output_code_and_record(tmp_path: Path, links: list[Link]) -> None:
    link = await spawn(shell(tmp_path, "echo out; echo err >&2; printf rest; exit 7"))
    links.append(link)
    events = [event async for event in link.events()]
    assert isinstance(events[0], Started)
    last = events[-1]
    assert isinstance(last, Exited)
    assert (last.code, last.signal, last.reason) == (7, None, "")
    assert last.boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert abs(last.at - time.time()) < 60
    assert texts(tmp_path) == ["out", "rest"]
    assert texts(tmp_path, "stderr") == ["err"]
    assert [entry.partial for entry in logfile.read(tmp_path / "log") if entry.text == b"rest"] == [True]
    assert read_exit(tmp_path / "run") == last
    await link.forget()
    assert not (tmp_path / "run" / "control").exists()
    with pytest.raises(MonitorLost):
        await connect(tmp_path / "run")


async def test_all_output_arrives_when_nobody_is_connected(tmp_path: Path, links: list[Link]) -> None:
    link = await spawn(shell(tmp_path, "i=1; while [ $i -le 1000 ]; do echo $i; i=$((i+1)); done; exit 7"))
    await link.close()
    for _ in range(3000):
        if read_exit(tmp_path / "run") is not None:
            break
        await asyncio.sleep(0.02)
    again = await connect(tmp_path / "run")
    links.append(again)
    events = [event async for event in again.events()]
    assert [type(event) for event in events] == [Started, Exited]
    assert events[-1] == read_exit(tmp_path / "run")
    assert texts(tmp_path) == [str(number) for number in range(1, 1001)]


async def test_a_monitor_outlives_whoever_started_it(tmp_path: Path, links: list[Link]) -> None:
    link = await spawn(shell(tmp_path, "exec sleep 1000"))
    links.append(link)
    stat = Path(f"/proc/{link.monitor_pid}/stat").read_text().rsplit(")", 1)[1].split()
    assert int(stat[3]) == os.getsid(link.monitor_pid) != os.getsid(0)
    assert int(stat[1]) != os.getpid()
    with pytest.raises(MonitorError, match="has not ended"):
        await link._ask("forget")
    with pytest.raises(MonitorError, match="lives in"):
        await spawn(shell(tmp_path, "true"))
    await link.signal(signal.SIGTERM)
    ended = await link.wait()
    assert (ended.code, ended.signal) == (None, signal.SIGTERM)


async def test_environment_directory_user_and_limits(tmp_path: Path, links: list[Link]) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    script = "pwd; echo $SECRET; id -u; id -g; id -G; ulimit -n; umask; cat /proc/self/oom_score_adj; ps -o sid= -p $$"
    command = Command(
        ("sh", "-c", script),
        env={"PATH": PATH, "SECRET": "s3cret"},
        cwd="/usr",
        uid=65534,
        gid=65534,
        groups=(4,),
        umask=0o027,
        rlimits={"NOFILE": (64, 128)},
        oom_score_adjust=100,
    )
    tmp_path.chmod(0o755)
    link = await spawn(MonitorSpec("user", tmp_path / "run", tmp_path / "log", command))
    links.append(link)
    assert (await link.wait()).code == 0
    lines = texts(tmp_path)
    assert lines[:8] == ["/usr", "s3cret", "65534", "65534", "65534 4", "64", "0027", "100"], texts(tmp_path, "stderr")
    assert b"s3cret" not in Path(f"/proc/{link.monitor_pid}/cmdline").read_bytes()


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (Command(("/no/such/program",)), 203, "executing /no/such/program: No such file"),
        (Command(("/etc/passwd",)), 203, "Permission denied"),
        (Command(("true",), env={"PATH": PATH}, cwd="/no/such/dir"), 200, "/no/such/dir: No such file"),
        (Command(("no-such-program",), env={"PATH": PATH}), 203, "no-such-program"),
    ],
)
async def test_a_command_that_can_not_start(
    tmp_path: Path, links: list[Link], command: Command, code: int, words: str
) -> None:
    link = await spawn(MonitorSpec("bad", tmp_path / "run", tmp_path / "log", command))
    links.append(link)
    events = [event async for event in link.events()]
    assert len(events) == 1
    assert isinstance(events[0], Exited)
    assert events[0].code == code
    assert words in events[0].reason


async def test_a_missing_group_is_an_error_of_its_own(tmp_path: Path, links: list[Link]) -> None:
    link = await spawn(shell(tmp_path, "true", payload_cgroups=(tmp_path / "nowhere",)))
    links.append(link)
    assert (await link.wait()).code == 219
    with pytest.raises(MonitorError, match="nowhere"):
        await spawn(shell(tmp_path / "b", "true", monitor_cgroups=(tmp_path / "nowhere",)))


async def test_attached_clients_share_streams(tmp_path: Path, links: list[Link]) -> None:
    link = await spawn(shell(tmp_path, "read a; echo got $a; echo bad >&2; cat", hold=True, stdin_open=True))
    links.append(link)
    async with await link.attach() as one, await link.attach() as two:
        await link.start()
        await one.write(b"x\n" + b"y" * 300_000)
        await one.write_eof()
        seen: list[bytes] = []
        for attached in (one, two):
            out, err = b"", b""
            while (piece := await attached.read()) is not None:
                if piece[0] == "stdout":
                    out += piece[1]
                else:
                    err += piece[1]
            assert err == b"bad\n"
            seen.append(out)
    assert seen[0] == seen[1] == b"got x\n" + b"y" * 300_000
    assert (await link.wait()).code == 0


async def test_a_slow_client_loses_nothing(tmp_path: Path, links: list[Link]) -> None:
    size = 8_000_000
    link = await spawn(shell(tmp_path, f"head -c {size} /dev/zero | tr '\\0' 'z'", hold=True))
    links.append(link)
    async with await link.attach() as attached:
        await link.start()
        await asyncio.sleep(0.3)
        total = 0
        while (piece := await attached.read()) is not None:
            total += len(piece[1])
    assert total == size
    assert sum(len(entry.text) for entry in logfile.read(tmp_path / "log")) == size


async def test_a_client_that_does_not_read_delays_no_exit(tmp_path: Path, links: list[Link]) -> None:
    """Its buffer is full, and a process that outlives the main one still waits to write."""
    size = 12_000_000
    script = f"(head -c {size} /dev/zero | tr '\\0' 'z') & sleep 0.5; exit 3"
    link = await spawn(shell(tmp_path, script, hold=True))
    links.append(link)
    async with await link.attach():
        await link.start()
        async with asyncio.timeout(STALLED_CLIENT_S / 2):
            assert (await link.wait()).code == 3
            assert read_exit(tmp_path / "run") is not None
            while sum(len(entry.text) for entry in logfile.read(tmp_path / "log")) < size:
                await asyncio.sleep(0.1)


async def test_a_client_that_does_not_read_delays_no_farewell(tmp_path: Path, links: list[Link]) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        on_the_way = one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) + 2 * LINE_LIMIT_BYTES
    size = on_the_way + 500_000
    link = await spawn(shell(tmp_path, f"head -c {size} /dev/zero | tr '\\0' 'z'", hold=True))
    links.append(link)
    async with await link.attach() as attached:
        await link.start()
        assert (await link.wait()).code == 0
        async with asyncio.timeout(ANSWER_TIMEOUT_S / 2):
            await link.forget()
        total = 0
        while (piece := await attached.read()) is not None:
            total += len(piece[1])
        assert total == size, "what was printed still waits for the client"


async def test_terminal(tmp_path: Path, links: list[Link]) -> None:
    script = "stty size; read a; stty size; echo $a; test -t 0 && tty"
    link = await spawn(shell(tmp_path, script, hold=True, tty=True, stdin_open=True))
    links.append(link)
    async with await link.attach() as attached:
        await link.start()
        assert (await attached.read()) == ("stdout", b"0 0\r\n")
        await link.resize(24, 100)
        await attached.write(b"hello\n")
        text = b""
        while (piece := await attached.read()) is not None:
            text += piece[1]
    assert b"24 100\r\nhello\r\n/dev/pts/" in text
    assert (await link.wait()).code == 0


async def test_notify_is_believed_only_from_the_main_process(tmp_path: Path, links: list[Link]) -> None:
    program = (
        "import os, socket, time\n"
        "def tell(text):\n"
        "    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect(os.environ['NOTIFY_SOCKET'])\n"
        "    s.send(text)\n"
        "if os.fork() == 0:\n"
        "    tell(b'STATUS=from a child'); os._exit(0)\n"
        "os.wait()\n"
        "tell(b'STATUS=one'); tell(b'READY=1\\nSTATUS=two'); time.sleep(0.2)\n"
    )
    command = Command(("/usr/bin/python3", "-c", program))
    link = await spawn(MonitorSpec("n", tmp_path / "run", tmp_path / "log", command, type="notify", notify="main"))
    links.append(link)
    heard = [event.text async for event in link.events() if isinstance(event, Notify)]
    assert heard == ["STATUS=one", "READY=1\nSTATUS=two"]


async def test_a_grandchild_that_holds_the_output_delays_the_exit_only_a_little(
    tmp_path: Path, links: list[Link]
) -> None:
    go = tmp_path / "go"
    script = f"(while [ ! -e {go} ]; do sleep 0.02; done; echo late) & echo soon; exit 3"
    link = await spawn(shell(tmp_path, script))
    links.append(link)
    async with asyncio.timeout(PATIENCE_S):
        assert (await link.wait()).code == 3
        assert texts(tmp_path) == ["soon"]
        go.touch()
        while texts(tmp_path) != ["soon", "late"]:
            await asyncio.sleep(0.02)


async def test_rotation_keeps_the_newest(tmp_path: Path, links: list[Link]) -> None:
    link = await spawn(shell(tmp_path, "seq 1 20000", log_max_bytes=100_000, log_max_files=3))
    links.append(link)
    await link.wait()
    files = sorted(path.name for path in (tmp_path / "log").iterdir())
    assert len(files) == 3
    numbers = [int(text) for text in texts(tmp_path)]
    assert numbers == list(range(numbers[0], 20001))
    assert [entry.text for entry in logfile.tail(tmp_path / "log", 2)] == [b"19999", b"20000"]


async def test_forking_by_guess_and_by_pid_file(tmp_path: Path, links: list[Link], group: Cgroup) -> None:
    for pid_file in (None, tmp_path / "daemon.pid"):
        run = tmp_path / ("guess" if pid_file is None else "file")
        write = f"echo $! > {pid_file};" if pid_file else ""
        go = run.with_suffix(".go")
        script = f"sh -c 'echo begun; while [ ! -e {go} ]; do sleep 0.02; done; exit 5' & {write} exit 0"
        link = await spawn(shell(run, script, type="forking", payload_cgroups=group.paths(), pid_file=pid_file))
        links.append(link)
        events = []
        async for event in link.events():
            events.append(event)
            if isinstance(event, MainPid):
                go.touch()
        assert [type(event) for event in events] == [Started, Forked, MainPid, Exited]
        assert isinstance(events[-1], Exited)
        assert events[-1].code == 5
        assert texts(run) == ["begun"]


async def test_signal_all_reaches_every_process_of_the_group(tmp_path: Path, links: list[Link], group: Cgroup) -> None:
    script = "setsid sleep 1000 & setsid sleep 1000 & echo up; wait"
    link = await spawn(shell(tmp_path, script, payload_cgroups=group.paths()))
    links.append(link)
    while not texts(tmp_path):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert len(group.procs()) == 3
    await link.kill()
    assert (await link.wait()).signal == signal.SIGKILL
    assert not group.procs()


async def test_a_killed_monitor_is_lost_and_its_payload_stays_in_its_group(tmp_path: Path, group: Cgroup) -> None:
    link = await spawn(shell(tmp_path, "exec sleep 1000", payload_cgroups=group.paths()))
    os.kill(link.monitor_pid, signal.SIGKILL)
    with pytest.raises(MonitorLost, match="no exit record"):
        await link.wait()
    with pytest.raises(MonitorLost, match="is gone"):
        await link.start()
    with pytest.raises(MonitorLost):
        await connect(tmp_path / "run")
    assert len(group.procs()) == 1


async def test_forking_waits_for_a_late_pid_file_and_sees_a_short_life(
    tmp_path: Path, links: list[Link], group: Cgroup
) -> None:
    pid_file = tmp_path / "daemon.pid"
    late = f"sh -c 'sleep 0.2; echo $$ > {pid_file}; kill -9 $$' & exit 0"
    link = await spawn(shell(tmp_path / "a", late, type="forking", payload_cgroups=group.paths(), pid_file=pid_file))
    links.append(link)
    ended = await link.wait()
    assert (ended.code, ended.signal, ended.reason) == (None, signal.SIGKILL, "")
    pid_file.unlink()
    never = "sleep 0.2 & exit 0"
    link = await spawn(shell(tmp_path / "b", never, type="forking", payload_cgroups=group.paths(), pid_file=pid_file))
    links.append(link)
    assert f"none wrote {pid_file}" in (await link.wait()).reason
    link = await spawn(shell(tmp_path / "c", "exit 4", type="forking", payload_cgroups=group.paths()))
    links.append(link)
    events = [event async for event in link.events()]
    assert [type(event) for event in events] == [Started, Forked, Exited]
    assert isinstance(events[-1], Exited)
    assert events[-1].code == 4


async def test_a_held_command_can_be_dropped(tmp_path: Path) -> None:
    link = await spawn(shell(tmp_path, "echo never", hold=True))
    await link.forget()
    with pytest.raises(MonitorLost):
        await connect(tmp_path / "run")
    assert texts(tmp_path) == []
    assert read_exit(tmp_path / "run") is None


async def test_following_a_log_across_rotation(tmp_path: Path, links: list[Link]) -> None:
    script = "i=1; while [ $i -le 300 ]; do echo $i; i=$((i+1)); done; sleep 0.3; echo end"
    (tmp_path / "log").mkdir()
    seen: list[str] = []

    async def follow() -> None:
        async for entry in logfile.follow(tmp_path / "log"):
            seen.append(entry.text.decode())
            if seen[-1] == "end":
                return

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(follow())
        link = await spawn(shell(tmp_path, script, log_max_bytes=2048, log_max_files=9))
        links.append(link)
    assert seen == [*map(str, range(1, 301)), "end"]
    entries = list(logfile.read(tmp_path / "log"))
    middle = logfile.Cursor.parse(str(entries[99].after))
    assert [entry.text for entry in logfile.read(tmp_path / "log", middle)] == [entry.text for entry in entries[100:]]
    assert all(one.time_ns <= two.time_ns for one, two in itertools.pairwise(entries))


async def test_want_of_file_handles_is_not_the_death_of_a_monitor(tmp_path: Path, links: list[Link]) -> None:
    link = await spawn(shell(tmp_path, "sleep 60"))
    links.append(link)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open("/dev/null", os.O_RDONLY)
    try:
        for spare in (0, 1):  # with one left, the run directory can be opened, and no socket made
            resource.setrlimit(resource.RLIMIT_NOFILE, (free + spare, hard))
            os.close(free)
            with pytest.raises(MonitorSilent):
                await connect(tmp_path / "run")
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert os.open("/dev/null", os.O_RDONLY) == free
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(free)
    await (await connect(tmp_path / "run")).close()


async def test_a_raised_file_limit_is_not_the_payload_s(tmp_path: Path, links: list[Link]) -> None:
    soft, hard = filelimit.INHERITED
    try:
        filelimit.raise_limit()
        link = await spawn(shell(tmp_path, "ulimit -Sn; ulimit -Hn"))
        links.append(link)
        await link.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert texts(tmp_path) == ["unlimited" if it == resource.RLIM_INFINITY else str(it) for it in (soft, hard)]
