"""A lab as a whole: its record, its lock, and what takes all machines or more than one.

The record lies in /run/fleet-lab/<name>; a lab whose commands were killed half-way is found by it and by its control
groups, and `down` or the next `up` removes what is left.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import ipaddress
import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from agent.cgroups import Cgroup
from cli.lab import machine as machines
from cli.lab import switch
from cli.lab.disk.control import DEVICE
from cli.lab.machine import CGROUP_ROOT, Machine
from cli.lab.switch import Cut, LabError

STATE_DIR = Path("/run/fleet-lab")
HOST = ".host"
"""The lock of what labs share, held for moments only: to remove the mount point takes every machine's mount with it."""
DATA_DIR = Path("/var/lib/fleet-lab")
MAX_MACHINES = 99
FIRST_HOST = 10
API_TIMEOUT_S = 1.0
SOCKET = "fleet.sock"
"""In a machine's /run when its fleetd answers."""


@dataclass(frozen=True)
class Slot:
    """What the lab keeps of one machine."""

    address: str
    args: tuple[str, ...] = ()


@dataclass
class Lab:
    """One lab, up or half so."""

    name: str
    dir: str
    expect: int
    daemon: tuple[str, ...] = ()
    """The stand-in for fleetd, or empty."""
    args: tuple[str, ...] = ()
    machines: dict[str, Slot] = field(default_factory=dict)
    cuts: dict[str, Cut] = field(default_factory=dict)
    disks: bool = False
    """Whether machines have disks of their own, that lose what was not synced."""

    @classmethod
    def load(cls, name: str) -> Lab:
        """Read the record; LabError when there is no such lab."""
        try:
            text = json.loads((_folder(name) / "lab.json").read_text())
        except FileNotFoundError as error:
            raise LabError(f"there is no lab {name!r}; `fleet-lab up` makes one") from error
        slots = {one: Slot(slot["address"], tuple(slot["args"])) for one, slot in text.pop("machines").items()}
        text["daemon"], text["args"] = tuple(text["daemon"]), tuple(text["args"])
        return cls(**text, machines=slots)

    def save(self) -> None:
        """Write the record, whole or not at all."""
        folder = _folder(self.name)
        folder.mkdir(parents=True, exist_ok=True)
        new = folder / "lab.json.new"
        new.write_text(json.dumps(asdict(self), indent=1))
        new.rename(folder / "lab.json")

    def machine(self, name: str) -> Machine:
        """Return a machine of this lab; LabError names those that there are."""
        slot = self.machines.get(name)
        if slot is None:
            raise LabError(f"lab {self.name} has no machine {name!r}, only {', '.join(self.machines)}")
        daemon = self.daemon or (
            *(sys.executable, "-m", "fleetd", "--insecure", "--bootstrap-expect", str(self.expect)),
            *("--listen-address", slot.address),
        )
        words = (*daemon, *self.args, *slot.args)
        return Machine(self.name, name, Path(self.dir) / name, slot.address, words, has_disk=self.disks)

    def all(self) -> list[Machine]:
        """Return every machine in order."""
        return [self.machine(name) for name in self.machines]

    def add(self, name: str, *, address: str | None = None, args: tuple[str, ...] = ()) -> None:
        """Give a new machine its place, or a known one another address or other arguments."""
        if not re.fullmatch(r"m[1-9][0-9]?", name):
            raise LabError(f"machines are called m1 to m{MAX_MACHINES}, not {name!r}")
        known = self.machines.get(name)
        usual = f"{switch.SUBNET}.{FIRST_HOST + int(name[1:])}"
        slot = Slot(address or (known.address if known else usual), args or (known.args if known else ()))
        _check_address(slot.address)
        if other := next(
            (one for one, had in self.machines.items() if one != name and had.address == slot.address), None
        ):
            raise LabError(f"{slot.address} is {other}'s address; a machine never gets another's")
        self.machines[name] = slot
        self.save()

    def start(self, name: str) -> None:
        """Power a machine on, with the cuts that it had."""
        machines.start(self.machine(name))

    def partition(self, name: str, direction: Cut) -> None:
        """Cut a machine off, one way or both."""
        self.machine(name)
        self.cuts[name] = direction
        switch.cut(self.name, self.cuts)
        self.save()

    def heal(self, *names: str) -> None:
        """Take back machines' cuts."""
        for name in [self.machine(one).name for one in names]:
            self.cuts.pop(name, None)
        switch.cut(self.name, self.cuts)
        self.save()


def up(
    name: str, count: int, folder: Path | None, *, daemon: tuple[str, ...], args: tuple[str, ...], disks: bool = False
) -> Lab:
    """Make a lab's switch and places (no machine is started yet); leftovers of that name go first."""
    _check_name(name)
    if not 1 <= count <= MAX_MACHINES:
        raise LabError(f"a lab has 1 to {MAX_MACHINES} machines, not {count}")
    if os.geteuid() != 0:
        raise LabError("a lab needs root: it makes namespaces, mounts and control groups")
    if disks and not DEVICE.exists():
        raise LabError(f"{DEVICE} is missing, which disks of machines need; `modprobe fuse` makes it")
    if running := [one for one in _recorded(name) if one.pid() is not None]:
        names = ", ".join(one.name for one in running)
        raise LabError(f"lab {name} is up ({names}); `fleet-lab down --name {name}` first")
    down(name)
    lab = Lab(name, str(folder.resolve() if folder else DATA_DIR / name), count, daemon, args, disks=disks)
    with _hold(HOST):
        lab.save()
    for number in range(1, count + 1):
        lab.add(f"m{number}")
    switch.make(name)
    switch.cut(name, {})
    return lab


def down(name: str) -> bool:
    """Remove a lab with its data, or whatever is left of it; False when there was nothing."""
    group = Cgroup(name, root=CGROUP_ROOT)
    found = group.exists() or switch.exists(name) or _folder(name).exists()
    if group.exists():
        group.kill()
        group.remove()
        _remove_empty_root(group)
    switch.remove(name)
    for machine in _recorded(name):
        shutil.rmtree(machine.dir, ignore_errors=True)
        for folder in (machine.dir.parent, DATA_DIR):
            with contextlib.suppress(OSError):
                folder.rmdir()
    shutil.rmtree(_folder(name), ignore_errors=True)
    with _hold(HOST):
        if not any(path.is_dir() for path in STATE_DIR.glob("*")):
            with contextlib.suppress(OSError):
                Path("/var/lib/fleetd").rmdir()  # the mount point, if it holds nothing of the host's own
    return found


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold a lab for one command; others wait. Raises LabError for a name that no lab can have."""
    _check_name(name)
    with _hold(name):
        yield


@contextlib.contextmanager
def _hold(name: str) -> Iterator[None]:
    path = STATE_DIR / f"{name}.lock"
    try:
        file = _locked(path)
    except OSError as error:
        raise LabError(f"a lab needs root: {error.strerror} ({STATE_DIR})") from error
    with file:
        try:
            yield
        finally:
            if not _folder(name).exists():
                path.unlink(missing_ok=True)


def _locked(path: Path) -> IO[str]:
    """Open and lock; a file that its last holder removed meanwhile holds nobody off, so that is tried again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = path.open("w")
        fcntl.flock(file, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
        file.close()


def names() -> list[str]:
    """Return the labs of this host, whole or in pieces."""
    found = {path.name for path in STATE_DIR.glob("*") if path.is_dir()}
    for top in Cgroup("any", root=CGROUP_ROOT).paths():
        found.update(path.name for path in top.parent.glob("*") if path.is_dir())
    found.update(name for path in switch.NETNS_DIR.glob("*") if (name := switch.lab_name(path.name)))
    return sorted(found)


def answers(machine: Machine) -> bool:
    """Tell whether the machine's fleetd has its socket."""
    pid = machine.pid()
    return pid is not None and Path(f"/proc/{pid}/root/run/{SOCKET}").exists()


def waits_for(machine: Machine) -> str:
    """What the machine's fleetd says it waits for before the cluster takes units; '' when it does."""
    pid = machine.pid()
    status = ask(pid, "/fleetd/v1/status") if pid is not None else None
    if status is None:
        return "fleetd does not answer"
    return str(status.get("why", ""))


def ask(pid: int, path: str, timeout: float = API_TIMEOUT_S) -> dict[str, Any] | None:
    """GET of the fleet API on the machine with this pid 1; None without a JSON object within `timeout` seconds."""
    connection = _Local(f"/proc/{pid}/root/run/{SOCKET}", timeout)
    try:
        connection.request("GET", path)
        found = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return found if isinstance(found, dict) else None


class _Local(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _recorded(name: str) -> list[Machine]:
    try:
        return Lab.load(name).all()
    except LabError:
        return []


def _folder(name: str) -> Path:
    return STATE_DIR / name


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,19}", name):
        raise LabError(f"a lab's name has up to 20 small letters, digits and '-', not {name!r}")


def _check_address(address: str) -> None:
    network = ipaddress.ip_network(f"{switch.SUBNET}.0/{switch.PREFIX}")
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError as error:
        raise LabError(f"{address!r} is no address") from error
    taken = (str(network[0]), str(network[-1]), switch.GATEWAY)
    if parsed not in network or address in taken:
        raise LabError(f"{address} is none for a machine; the lab's network is {network}, without {', '.join(taken)}")


def _remove_empty_root(group: Cgroup) -> None:
    for path in group.paths():
        with contextlib.suppress(OSError):
            path.parent.rmdir()
