"""Pid 1 of a lab machine: makes its world, starts the daemon, starts it again when it dies, and reaps.

Started by `machine.start` as a plain process with a plan (one JSON line on stdin). It enters new namespaces, tells the
pid that its child has on the host, and the child becomes the machine once a second line says that the cable is in.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from cli.lab import namespaces as ns
from cli.lab.disk import control as disks

LAB_DIR = Path("/run/lab")
"""Where a machine sees its own folder of the lab."""
STOPPED_FLAG = "stopped"
DAEMON_PID = "daemon.pid"
DAEMON_LOG = "fleetd.log"
FIRST_DELAY_S = 0.1
LAST_DELAY_S = 2.0
SETTLED_S = 2.0
MAX_LOG_BYTES = 64 << 20
DATA_DIR = Path("/var/lib/fleetd")
DISK_SOCKET = "disk.sock"
OFF_THE_DISK = ("images", "containers")
"""Parts of the data directory that no disk has: overlayfs does not write to FUSE, and images have links and devices."""
TMPFS_OPTIONS = "mode=755,size=25%"


def main() -> None:
    """Run as `python -m cli.lab.init`."""
    plan = json.loads(sys.stdin.readline())
    for directory in plan["cgroups"]:
        (Path(directory) / "cgroup.procs").write_text("0")
    os.setsid()
    ns.unshare(ns.NEW_MOUNT | ns.NEW_CGROUP | ns.NEW_UTS | ns.NEW_IPC | ns.NEW_PID | ns.NEW_NET)
    if (pid := os.fork()) != 0:
        print(pid, flush=True)
        os._exit(0)
    if sys.stdin.readline().strip() != "go":
        os._exit(1)  # the lab is gone; so is this machine
    try:
        disk = build(plan)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"machine {plan['name']}: {error}", flush=True)
        os._exit(1)
    print("up", flush=True)
    null = os.open(os.devnull, os.O_RDWR)
    for target in (0, 1, 2):
        os.dup2(null, target)
    watch(plan)
    del disk  # Its end of the pipe is held until here, that is for good: the disk goes with this process.


def build(plan: dict[str, Any]) -> subprocess.Popen[bytes] | None:
    """Make the machine's mounts, name, identity and address; returns its disk, if it has one of its own."""
    handles = {path: os.open(path, os.O_PATH) for path in (plan["dir"], *plan["visible"])}
    ns.mount("none", "/", flags=ns.MS_REC | ns.MS_PRIVATE)
    ns.mount("proc", "/proc", "proc", ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC)
    ns.mount("sysfs", "/sys", "sysfs", ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC)
    for path in ("/run", "/tmp", "/dev/shm"):
        if Path(path).is_dir():
            ns.mount("tmpfs", path, "tmpfs", ns.MS_NOSUID | ns.MS_NODEV, TMPFS_OPTIONS)
    for path in ("/tmp", "/dev/shm"):
        Path(path).chmod(0o1777)
    Path("/run/lock").mkdir()
    LAB_DIR.mkdir()
    ns.bind(f"/proc/self/fd/{handles[plan['dir']]}", LAB_DIR)
    for path in plan["visible"]:
        if path.startswith(("/tmp/", "/run/")):  # the fresh tmpfs would hide the program itself
            Path(path).mkdir(parents=True, exist_ok=True)
            ns.bind(f"/proc/self/fd/{handles[path]}", path)
    for handle in handles.values():
        os.close(handle)
    mount_cgroups(plan["hierarchies"], plan["links"])
    socket.sethostname(plan["name"])
    own_files(plan)
    DATA_DIR.mkdir(parents=True, exist_ok=True)
    (LAB_DIR / "data").mkdir(exist_ok=True)
    disk = insert_disk(Path(plan["disk"])) if plan["disk"] else None
    if disk is None:
        ns.bind(LAB_DIR / "data", DATA_DIR)
    commands = (
        "link set lo up\n"
        f"addr add {plan['address']}/{plan['prefix']} broadcast + dev eth0\n"
        "link set eth0 up\n"
        f"route add default via {plan['gateway']}\n"
    )
    subprocess.run(["ip", "-batch", "-"], input=commands.encode(), check=True, stdout=subprocess.DEVNULL)
    return disk


def insert_disk(program: Path) -> subprocess.Popen[bytes]:
    """Have the data directory on a disk that loses what was not synced; it is a process of the machine's own."""
    backing = LAB_DIR / "disk"
    backing.mkdir(exist_ok=True)
    disk = disks.start(program, backing, DATA_DIR, LAB_DIR / DISK_SOCKET)
    for name in OFF_THE_DISK:
        (LAB_DIR / "data" / name).mkdir(exist_ok=True)
        (DATA_DIR / name).mkdir(exist_ok=True)
        ns.bind(LAB_DIR / "data" / name, DATA_DIR / name)
    return disk


def mount_cgroups(hierarchies: list[dict[str, Any]], links: dict[str, str]) -> None:
    """Mount every hierarchy again, so that the machine sees its own sub-tree as the root."""
    top = Path("/sys/fs/cgroup")
    flags = ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC
    if len(hierarchies) > 1 or hierarchies[0]["mount"] != str(top):
        ns.mount("tmpfs", top, "tmpfs", flags, "mode=755")
    for hierarchy in hierarchies:
        target = Path(hierarchy["mount"])
        target.mkdir(parents=True, exist_ok=True)
        if hierarchy["version"] == 2:
            ns.mount("cgroup2", target, "cgroup2", flags)
            own = target / "init"  # groups below can have controllers only when the root holds no process
            own.mkdir(exist_ok=True)
            (own / "cgroup.procs").write_text("0")
        else:
            ns.mount("cgroup", target, "cgroup", flags, hierarchy["options"])
    for name, target_name in links.items():
        (top / name).symlink_to(target_name)


def own_files(plan: dict[str, Any]) -> None:
    """Give the machine its own machine-id, hosts, hostname and boot id."""
    files = {
        "/etc/machine-id": f"{plan['machine_id']}\n",
        "/etc/hostname": f"{plan['name']}\n",
        "/etc/hosts": f"127.0.0.1 localhost\n::1 localhost\n{plan['address']} {plan['name']}\n",
        "/proc/sys/kernel/random/boot_id": f"{uuid.uuid4()}\n",
    }
    if not Path("/etc/machine-id").exists():
        for part in ("upper", "work"):
            (LAB_DIR / "etc" / part).mkdir(parents=True, exist_ok=True)
        layers = f"lowerdir=/etc,upperdir={LAB_DIR}/etc/upper,workdir={LAB_DIR}/etc/work"
        ns.mount("overlay", "/etc", "overlay", 0, layers)
        Path("/etc/machine-id").touch()
    mine = Path("/run/lab-files")
    mine.mkdir()
    for place, text in files.items():
        if Path(place).exists():
            own = mine / Path(place).name
            own.write_text(text)
            own.chmod(0o444)
            ns.bind(own, place)


def watch(plan: dict[str, Any]) -> None:
    """Keep the daemon running, and reap whatever is left to pid 1. Never returns."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGUSR2})
    stopped = LAB_DIR / STOPPED_FLAG
    daemon, born, delay = 0, 0.0, FIRST_DELAY_S
    while True:
        if daemon == 0 and not stopped.exists():
            daemon, born = start_daemon(plan), time.monotonic()
        signal.sigtimedwait({signal.SIGCHLD, signal.SIGUSR2}, 3600)
        died = False
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                died |= ended == daemon
        if died:
            daemon = 0
            (LAB_DIR / DAEMON_PID).unlink(missing_ok=True)
            delay = FIRST_DELAY_S if time.monotonic() - born > SETTLED_S else min(delay * 2, LAST_DELAY_S)
            until = time.monotonic() + delay
            while (left := until - time.monotonic()) > 0 and not stopped.exists():
                signal.sigtimedwait({signal.SIGUSR2}, left)


def start_daemon(plan: dict[str, Any]) -> int:
    """Start the daemon and note its pid (as the machine sees it)."""
    path = LAB_DIR / DAEMON_LOG
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.rename(path.with_suffix(".log.old"))
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pid = os.posix_spawnp(
            plan["daemon"][0],
            plan["daemon"],
            plan["environment"],
            file_actions=[(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)],
            setsigmask=[],
            setsid=True,
        )
    except OSError as error:
        os.write(log, f"fleet-lab: {plan['daemon'][0]} can't be started: {error.strerror}\n".encode())
        pid = os.posix_spawn("/bin/sleep", ["sleep", "1"], {})
    finally:
        os.close(log)
        os.close(null)
    new = LAB_DIR / f"{DAEMON_PID}.new"
    new.write_text(str(pid))
    new.rename(LAB_DIR / DAEMON_PID)
    return pid


if __name__ == "__main__":
    main()
