"""One lab machine: start it, cut its power, enter it, handle its daemon. What runs inside is `init`."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from agent.cgroups import Cgroup
from agent.hierarchies import Hierarchy
from cli.lab import switch
from cli.lab.disk.control import Control, Loss, program
from cli.lab.init import DAEMON_LOG, DAEMON_PID, DISK_SOCKET, STOPPED_FLAG
from cli.lab.switch import LabError

START_TIMEOUT_S = 20.0
KILL_TIMEOUT_S = 10.0
DAEMON_STOP_S = 10.0
START_UNDER_WAY_S = 0.3
POLL_S = 0.02
CODE_ROOT = Path(__file__).resolve().parents[2]
CGROUP_ROOT = "fleet-lab"


@dataclass(frozen=True)
class Machine:
    """A machine of a lab, on or off."""

    lab: str
    name: str
    dir: Path
    """Its folder on the host: `data` (its /var/lib/fleetd), its machine-id, its daemon's log."""
    address: str
    daemon: tuple[str, ...]
    has_disk: bool = False
    """Whether its data lies on a disk of its own, that loses what was not synced."""

    @property
    def group(self) -> Cgroup:
        """Its sub-tree of the control groups."""
        return Cgroup(f"{self.lab}/{self.name}", root=CGROUP_ROOT)

    @property
    def log(self) -> Path:
        """Where its daemon's output goes."""
        return self.dir / DAEMON_LOG

    @property
    def disk(self) -> Control:
        """Its disk; LabError when it has none or is off."""
        if not self.has_disk:
            raise LabError(f"{self.name} has no disk of its own: make the lab with `fleet-lab up --disks`")
        if self.pid() is None:
            raise LabError(f"{self.name} is off")
        return Control(self.dir / DISK_SOCKET)

    def machine_id(self) -> str:
        """Return its machine-id, made at first use."""
        path = self.dir / "machine-id"
        if not path.exists():
            self.dir.mkdir(parents=True, exist_ok=True)
            path.write_text(uuid.uuid4().hex + "\n")
        return path.read_text().strip()

    def pid(self) -> int | None:
        """Return the host's pid of its pid 1, or None when it is off."""
        try:
            pid, ticks = (self.dir / "pid").read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        return int(pid) if _start_ticks(int(pid)) == int(ticks) else None

    def daemon_pid(self) -> int | None:
        """Return the host's pid of its daemon, or None when none runs."""
        init = self.pid()
        try:
            inside = int((self.dir / DAEMON_PID).read_text())
        except (FileNotFoundError, ValueError):
            return None
        if init is None:
            return None
        for pid in self.group.procs():
            if _pids_inside(pid)[1:] == [inside]:
                return pid
        return None


def start(machine: Machine) -> None:
    """Power on: namespaces, mounts, cable, daemon. Returns when its pid 1 has built its world."""
    if machine.pid() is not None:
        raise LabError(f"{machine.name} is on already")
    clear(machine)
    machine_id = machine.machine_id()
    group = machine.group
    group.make()
    layout = group.layout
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": str(CODE_ROOT),
        "HOME": "/root",
        "LANG": "C.UTF-8",
        **{key: value for key, value in os.environ.items() if key.startswith(("FLEETD_", "FLEET_", "RUST_"))},
    }
    plan = {
        "name": machine.name,
        "dir": str(machine.dir),
        "visible": sorted({str(CODE_ROOT), sys.prefix, sys.base_prefix}),
        "machine_id": machine_id,
        "address": machine.address,
        "prefix": switch.PREFIX,
        "gateway": switch.GATEWAY,
        "daemon": list(machine.daemon),
        "environment": environment,
        "cgroups": [str(path) for path in group.paths()],
        "hierarchies": [
            {"mount": str(one.mount), "version": one.version, "options": _mount_options(one)}
            for one in layout.hierarchies
        ],
        "links": _links(),
        "disk": str(program()) if machine.has_disk else "",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.lab.init"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        env=environment,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        process.stdin.write(json.dumps(plan) + "\n")
        process.stdin.flush()
        first = _line(process.stdout, machine)
        if not first.isdigit():
            process.kill()
            process.wait()
            raise LabError(f"{machine.name} can't be started: {first} {process.stdout.read()}".strip())
        process.wait()
        pid = int(first)
        (machine.dir / "pid").write_text(f"{pid} {_start_ticks(pid)}")
        switch.plug(machine.lab, machine.name, pid)
        process.stdin.write("go\n")
        process.stdin.flush()
        if (answer := _line(process.stdout, machine)) != "up":
            raise LabError(f"{machine.name} can't be started: {answer}")


def kill(*those: Machine, loss: Loss = "all", seed: int = 0) -> dict[str, str]:
    """Cut the power of machines at once: a SIGKILL to pid 1 takes everything in one; then its empty groups go.

    Their disks, of those that have one, lose what was not synced. Returns how much, by machine.
    """
    handles: dict[str, int] = {}
    told: dict[str, str] = {}
    try:
        for machine in those:
            pid = machine.pid()
            if pid is None:
                raise LabError(f"{machine.name} is off")
            handles[machine.name] = os.pidfd_open(pid)
        for at, machine in enumerate(those):
            if machine.has_disk:
                # One that was killed, or has been told to hang, has lost all anyway.
                with contextlib.suppress(OSError):
                    told[machine.name] = machine.disk.cut(loss, seed + at)
        for handle in handles.values():
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        for name, handle in handles.items():
            if not select.select([handle], [], [], KILL_TIMEOUT_S)[0]:
                raise LabError(f"{name}: its pid 1 survives SIGKILL for {KILL_TIMEOUT_S:.0f} s")
    finally:
        for handle in handles.values():
            os.close(handle)
    for machine in those:
        clear(machine)
    return told


def clear(machine: Machine) -> None:
    """Remove what a machine that is off may have left: processes, control groups, its cable's end, its pid files."""
    group = machine.group
    if group.exists():
        group.kill()
        group.remove()
    if switch.exists(machine.lab):
        switch.unplug(machine.lab, machine.name)
    for name in ("pid", DAEMON_PID, DISK_SOCKET):
        (machine.dir / name).unlink(missing_ok=True)


def enter(machine: Machine, command: list[str]) -> None:
    """Become `command` inside the machine. Does not return."""
    pid = machine.pid()
    if pid is None:
        raise LabError(f"{machine.name} is off")
    for hierarchy, path in zip(machine.group.layout.hierarchies, machine.group.paths(), strict=True):
        (path / ("init" if hierarchy.version == 2 else "") / "cgroup.procs").write_text("0")
    environment = dict(os.environ)
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment.get('PATH', '/usr/sbin:/usr/bin:/sbin:/bin')}"
    environment.setdefault("PYTHONPATH", str(CODE_ROOT))
    nsenter = ["nsenter", "--target", str(pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--wd=/"]
    try:
        os.execvpe("nsenter", [*nsenter, "--", *command], environment)
    except OSError as error:
        raise LabError(f"nsenter can't be run: {error.strerror} (package util-linux)") from error


def stop_daemon(machine: Machine, *, kill_it: bool) -> None:
    """End the daemon and keep it from being started again; SIGKILL at once, or when SIGTERM did not do in 10 s."""
    if machine.pid() is None:
        raise LabError(f"{machine.name} is off")
    (machine.dir / STOPPED_FLAG).touch()
    # Pid 1 may be about to start one that has just ended: it looked for the flag a moment before.
    _until(lambda: machine.daemon_pid() is not None, START_UNDER_WAY_S)
    pid = machine.daemon_pid()
    if pid is None:
        return
    os.kill(pid, signal.SIGKILL if kill_it else signal.SIGTERM)
    if not _until(lambda: not Path(f"/proc/{pid}").exists(), DAEMON_STOP_S):
        os.kill(pid, signal.SIGKILL)
        _until(lambda: not Path(f"/proc/{pid}").exists(), KILL_TIMEOUT_S)


def start_daemon(machine: Machine) -> int:
    """Let the daemon run again; returns its pid on the host."""
    pid = machine.pid()
    if pid is None:
        raise LabError(f"{machine.name} is off")
    (machine.dir / STOPPED_FLAG).unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR2)
    return _new_daemon(machine, None)


def restart_daemon(machine: Machine) -> int:
    """kill -9 of the daemon alone; pid 1 starts it again. Returns the new pid on the host."""
    pid = machine.daemon_pid()
    if pid is None:
        raise LabError(f"no daemon runs on {machine.name}")
    os.kill(pid, signal.SIGKILL)
    return _new_daemon(machine, pid)


def _new_daemon(machine: Machine, old: int | None) -> int:
    if not _until(lambda: machine.daemon_pid() not in (None, old), DAEMON_STOP_S):
        raise LabError(f"{machine.name}: its daemon was not started again; see {machine.log}")
    pid = machine.daemon_pid()
    if pid is None:
        raise LabError(f"{machine.name}: its daemon ended at once; see {machine.log}")
    return pid


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_S)
    return True


def _line(stream: IO[str], machine: Machine) -> str:
    ready, _, _ = select.select([stream], [], [], START_TIMEOUT_S)
    if not ready:
        raise LabError(f"{machine.name} was not up after {START_TIMEOUT_S:.0f} s")
    return stream.readline().strip()


def _mount_options(hierarchy: Hierarchy) -> str:
    names = sorted(hierarchy.controllers)
    return ",".join(["none", *names] if all(name.startswith("name=") for name in names) else names)


def _links() -> dict[str, str]:
    """The names that a v1 host has for its joined hierarchies (`cpu` -> `cpu,cpuacct`)."""
    top = Path("/sys/fs/cgroup")
    return {path.name: str(path.readlink()) for path in top.iterdir() if path.is_symlink()}


def _pids_inside(pid: int) -> list[int]:
    """Its pid in this namespace and in each one below, down to its own."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return []
    return next(
        ([int(one) for one in line.split()[1:]] for line in status.splitlines() if line.startswith("NSpid:")), []
    )


def _start_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return -1
    return -1 if fields[0] in ("Z", "X") else int(fields[19])
