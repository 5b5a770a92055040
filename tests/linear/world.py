"""Three members, each a process in a network namespace of its own, and what can happen to them.

It is used from within the switch's namespace (`cli.lab.switch`): clients there reach every member, whatever is cut
between the members. All processes end with the one that made them.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from cli.lab import switch
from tests.conformance.members import OURS, Member, until
from tests.disk.mounted import Disk, missing
from tests.linear import clock
from tests.linear.clock import Clock

NAMES = ("m1", "m2", "m3")
CLIENT_PORT, PEER_PORT = 2379, 2380
FLAGS = ["--insecure", "--heartbeat-interval=60", "--election-timeout=600"]
LEASH = ("setpriv", "--pdeathsig", "KILL")
"""Before a command: it ends with whoever started it."""


class World:
    """The members. `wire` first, then `start`; `close` in any case."""

    def __init__(self, directory: Path, lab: str, command: Sequence[str] = OURS) -> None:
        self.directory, self.lab, self._command = directory, lab, tuple(command)
        self.members: dict[str, Member] = {}
        self.disks: dict[str, Disk] = {}
        """By member; none where they can't be mounted."""
        self.clocks: dict[str, Clock] = {}
        """By member; none where they can't be made."""
        self._enter: dict[str, tuple[str, ...]] = {}
        self._mounted = contextlib.ExitStack()
        self._holders: list[subprocess.Popen[bytes]] = []

    def wire(self) -> None:
        """Make the members' namespaces, joined to the switch, their disks and clocks."""
        library = None if clock.missing() else clock.build(self.directory)
        for number, name in enumerate(NAMES, 1):
            holder = subprocess.Popen([*LEASH, "unshare", "--net", "sleep", "infinity"])
            self._holders.append(holder)
            own, ours = Path(f"/proc/{holder.pid}/ns/net"), Path("/proc/self/ns/net").readlink()
            until(f"namespace of {name}", lambda own=own, ours=ours: own.readlink() != ours)
            switch.plug(self.lab, name, holder.pid)
            address = f"{switch.SUBNET}.{number}"
            enter = ("nsenter", f"--net={own}")
            lines = f"link set lo up\naddr add {address}/{switch.PREFIX} dev eth0\nlink set eth0 up\n"
            switch.run(*enter, "ip", "-batch", "-", text=lines)
            self._enter[name] = enter
            one = Member(name, self.directory, CLIENT_PORT, PEER_PORT, FLAGS, address=address)
            if library is not None:
                self.clocks[name] = Clock(library, self.directory / f"clock-{name}")
            if not missing():
                self.disks[name] = self._mounted.enter_context(Disk(self.directory / f"disk-{name}"))
                one.place = self.disks[name].path / "data"
            self.members[name] = one

    @property
    def urls(self) -> dict[str, str]:
        """The members' client URLs."""
        return {name: member.client_url for name, member in self.members.items()}

    def start(self, names: Iterable[str] = NAMES) -> None:
        """Start members; does not wait."""
        initial = ",".join(f"{one.name}={one.peer_url}" for one in self.members.values())
        for name in names:
            before = self.clocks[name].before() if name in self.clocks else ()
            self.members[name].command = (*LEASH, *self._enter[name], *before, *self._command)
            self.members[name].start(initial)

    def ready(self) -> None:
        """Wait until each member knows a leader; one that has ended is an error."""
        for one in self.members.values():
            until(f"leader known to {one.name}, see {one.log}", lambda one=one: ended(one) or one.healthy(), 30.0)
            assert not ended(one), f"{one.name} has ended: {one.log.read_text()[-2000:]}"

    def kill(self, names: Iterable[str]) -> None:
        """End members at once."""
        for name in names:
            self.members[name].send(signal.SIGKILL)
        for name in names:
            process = self.members[name].process
            assert process is not None
            process.wait()

    def freeze(self, name: str, still: bool) -> None:
        """Let a member stand still, or go on."""
        self.members[name].send(signal.SIGSTOP if still else signal.SIGCONT)

    def leader(self) -> str | None:
        """The member that says that it leads, if one does."""
        for name, one in self.members.items():
            if not ended(one) and "\netcd_server_is_leader 1\n" in one.fetch("/metrics"):
                return name
        return None

    def cut(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Drop what goes from the first of each pair to the second, and nothing else."""
        drops = "".join(f'    iifname "{one}" oifname "{other}" drop\n' for one, other in sorted(pairs))
        chain = f"  chain cuts {{\n    type filter hook forward priority 0; policy accept;\n{drops}  }}\n"
        switch.run(
            "nft", "-f", "-", text=f"add table bridge lin\ndelete table bridge lin\ntable bridge lin {{\n{chain}}}\n"
        )

    def tail(self, name: str) -> tuple[Path, int]:
        """The last segment of a member's log, and where what was written in it ends."""
        path = max(self.members[name].data.glob("wal/*.wal"))
        return path, len(path.read_bytes().rstrip(b"\0"))

    def close(self) -> None:
        """End everything."""
        for one in self.members.values():
            if one.process is not None:
                one.process.kill()
                one.process.wait()
        for holder in self._holders:
            holder.kill()
            holder.wait()
        self._mounted.close()


def ended(member: Member) -> bool:
    """Whether a member's process is no more."""
    return member.process is None or member.process.poll() is not None
