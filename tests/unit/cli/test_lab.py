"""fleet-lab with real machines; a small program stands in for fleetd."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.cgroups import Cgroup
from cli.lab import lab as labs
from cli.lab import switch
from cli.lab.lab import Lab, Slot
from cli.lab.switch import LabError

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
ROOT = Path(__file__).parents[3]
ECHO = """
import socket, socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(socket.gethostname().encode())
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("0.0.0.0", 7000), Echo).serve_forever()
"""
CALL = "import socket,sys; print(socket.create_connection((sys.argv[1], 7000), {}).recv(99).decode())"
CUT_S, PATIENCE_S = 0.4, 60

Run = Callable[..., subprocess.CompletedProcess[str]]


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "cli.lab.app", *args]


@pytest.fixture(scope="module")
def name() -> str:
    return f"t{os.getpid()}"


@pytest.fixture(scope="module")
def run(name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Runs fleet-lab against a lab of two machines that goes down afterwards, and looks for what is left of it."""
    folder = tmp_path_factory.mktemp("lab")

    def call(*args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "FLEET_LAB": name}
        done = subprocess.run(
            command(*args), cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    try:
        call("up", "-n", "2", "--dir", str(folder), "--daemon", f"{sys.executable} -c '{ECHO}'")
        yield call
    finally:
        call("down", check=False)
        assert not switch.exists(name)
        assert not Cgroup(name, root="fleet-lab").exists()
        assert not folder.exists()
        assert name not in Path("/proc/self/mountinfo").read_text()


def machines(run: Run) -> dict[str, dict[str, Any]]:
    found = json.loads(run("status", "--json").stdout)
    return {one["name"]: one for one in found["machines"]}


def reaches(run: Run, one: str, other: str, seconds: float = PATIENCE_S) -> str:
    """The name that one machine hears from another within so many seconds, nothing when it hears none."""
    address = machines(run)[other]["address"]
    end = time.monotonic() + PATIENCE_S
    while True:
        done = run("exec", one, "--", sys.executable, "-c", CALL.format(seconds), address, check=False)
        if done.returncode == 0 or "refused" not in done.stderr or time.monotonic() > end:
            return done.stdout.strip()
        time.sleep(0.05)


@needs_root
@pytest.mark.lab
def test_machines_have_worlds_of_their_own(run: Run) -> None:
    script = "hostname; cat /proc/sys/kernel/random/boot_id /etc/machine-id; echo $$; ls /run/lab/fleetd.log; ls /proc"
    seen = {one: run("exec", one, "--", "sh", "-c", script).stdout.split() for one in ("m1", "m2")}
    host = [Path("/proc/sys/kernel/random/boot_id").read_text().strip()]
    assert [seen[one][0] for one in seen] == ["m1", "m2"]
    assert len({seen["m1"][1], seen["m2"][1], *host}) == 3
    assert seen["m1"][2] == machines(run)["m1"]["machine_id"] != seen["m2"][2]
    assert str(os.getpid()) not in seen["m1"][5:]
    assert run("exec", "m1", "--", "sh", "-c", "exit 7", check=False).returncode == 7
    groups = run("exec", "m1", "--", "cat", "/proc/self/cgroup").stdout.split()
    assert {line.rsplit(":", 1)[1] for line in groups} <= {"/", "/init"}


@needs_root
@pytest.mark.lab
def test_a_monitor_works_inside_and_dies_with_the_machine(run: Run) -> None:
    program = textwrap.dedent("""
        import asyncio
        from pathlib import Path
        from agent.cgroups import Cgroup, Limits
        from agent.monitor.link import Command, MonitorSpec, spawn
        async def main():
            group = Cgroup.create("u/payload", Limits(pids_max=20))
            command = Command(("/bin/sleep", "1000"))
            link = await spawn(MonitorSpec("u", Path("/run/u"), Path("/var/lib/fleetd/log"), command,
                               payload_cgroups=group.paths()))
            async for event in link.events():
                print(event.pid, sorted(group.procs()) == [event.pid])
                return
        asyncio.run(main())
    """)
    env = run("exec", "m1", "--", "env", f"PYTHONPATH={ROOT}", sys.executable, "-c", program)
    assert env.stdout.split()[1] == "True"
    old = machines(run)["m1"]
    run("kill", "m1")
    assert machines(run)["m1"]["state"] == "off"
    assert "is off" in run("exec", "m1", "--", "true", check=False).stderr
    run("start", "m1")
    assert machines(run)["m1"]["machine_id"] == old["machine_id"]
    assert "sleep" not in run("exec", "m1", "--", "sh", "-c", "cat /proc/[0-9]*/comm").stdout
    assert "log.1" in run("exec", "m1", "--", "ls", "/var/lib/fleetd/log").stdout


@needs_root
@pytest.mark.lab
def test_cuts_are_one_way_or_both_and_heal(run: Run) -> None:
    assert (reaches(run, "m1", "m2"), reaches(run, "m2", "m1")) == ("m2", "m1")
    for direction in ("--in", "--out", ""):
        run("partition", "m1", *([direction] if direction else []))
        assert machines(run)["m1"]["cut"] == (direction.strip("-") or "both")
        assert (reaches(run, "m1", "m2", CUT_S), reaches(run, "m2", "m1", CUT_S)) == ("", "")
    run("heal", "m1")
    end = time.monotonic() + PATIENCE_S
    while reaches(run, "m2", "m1") != "m1":
        assert time.monotonic() < end


@needs_root
@pytest.mark.lab
def test_the_daemon_alone_is_killed_stopped_and_started(run: Run) -> None:
    first = machines(run)["m2"]
    second = int(run("restart-daemon", "m2").stdout)
    assert second == machines(run)["m2"]["daemon_pid"] != first["daemon_pid"]
    assert machines(run)["m2"]["pid"] == first["pid"]
    run("stop-daemon", "m2")
    assert machines(run)["m2"]["daemon_pid"] is None
    time.sleep(0.5)
    assert machines(run)["m2"]["daemon_pid"] is None
    assert int(run("start-daemon", "m2").stdout) == machines(run)["m2"]["daemon_pid"]


@needs_root
@pytest.mark.lab
def test_addresses_change_but_are_never_shared(run: Run) -> None:
    run("kill", "m1")
    refused = run("start", "m1", "--address", machines(run)["m2"]["address"], check=False)
    assert refused.returncode == 1
    assert "is m2's address" in refused.stderr
    assert "none for a machine" in run("start", "m1", "--address", "192.0.2.1", check=False).stderr
    run("start", "m1", "--address", "10.77.0.77")
    assert reaches(run, "m2", "m1") == "m1"
    run("start", "m3")
    assert reaches(run, "m1", "m3") == "m3"
    assert "on already" in run("start", "m3", check=False).stderr
    run("kill", "m1", "m3")
    assert [one["state"] for one in machines(run).values()] == ["off", "on", "off"]
    run("start", "m1")
    assert machines(run)["m1"]["address"] == "10.77.0.77"


@needs_root
@pytest.mark.lab
def test_leftovers_of_a_killed_lab_are_found(tmp_path: Path) -> None:
    name = f"k{os.getpid()}"
    try:
        for delay in (0.3, 0.4, 0.5):
            arguments = ("up", "-n", "9", "--name", name, "--dir", str(tmp_path / "d"), "--daemon", "sleep 1000")
            process = subprocess.Popen(command(*arguments), cwd=ROOT, stdout=subprocess.DEVNULL)
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            process.wait()
            with labs.lock(name):
                labs.down(name)
            assert not Cgroup(name, root="fleet-lab").exists()
            assert not switch.exists(name)
            assert name not in labs.names()
            assert not list(labs.STATE_DIR.glob(f"{name}*"))
    finally:
        with labs.lock(name):
            labs.down(name)


def test_rules_of_cuts() -> None:
    text = switch.rules({"m2": "in", "m1": "both"})
    drops = [line.strip() for line in text.splitlines() if "drop" in line]
    assert drops == ['oifname "m1" drop', 'iifname "m1" drop', 'oifname "m2" drop']
    assert "drop" not in switch.rules({})


def test_bad_names_and_counts(tmp_path: Path) -> None:
    for name, count, words in (("Bad_Name", 3, "small letters"), ("x", 0, "1 to 99"), ("x", 100, "1 to 99")):
        with pytest.raises(LabError, match=words):
            labs.up(name, count, tmp_path, daemon=(), args=())
    lab = Lab("x", "/nowhere", 3, machines={"m1": Slot("10.77.0.11", ("--metadata", "a=b"))}, args=("--voters", "5"))
    daemon = lab.machine("m1").daemon
    assert daemon[1:4] == ("-m", "fleetd", "--insecure")
    assert daemon[-4:] == ("--voters", "5", "--metadata", "a=b")
    with pytest.raises(LabError, match="no machine 'm9', only m1"):
        lab.machine("m9")


def test_a_lock_lets_one_in_at_a_time_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "state"
    monkeypatch.setattr("cli.lab.lab.STATE_DIR", state)
    inside, together = 0, []

    def enter() -> None:
        nonlocal inside
        for _ in range(100):
            with labs.lock("one"):
                inside += 1
                together.append(inside)
                time.sleep(0)
                inside -= 1

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [1] * 400
    assert not list(state.iterdir())
