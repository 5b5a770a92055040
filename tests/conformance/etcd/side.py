"""One side of the comparison: a server's members, the clients that speak to it, and its own names for things."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.ports import free_ports
from tests.conformance.etcd.normal import Names
from tests.conformance.members import ROOT, Member, Members, until

FOREIGN = ROOT / "build/peers/aetcd/bin/python"
"""The interpreter that has the foreign client; `make setup` lays it there."""
HTTP_TIMEOUT_S = 30.0
LINE_TIMEOUT_S = 30.0
STUCK = "stuck"
"""Marks an answer that did not come; where the reference gives one, the scenario is wrong."""
END = "\0"
"""Stands for the end of a program's output."""
ALIGN_KEY = "~align"
ALL_KEYS = {"key": "\0", "range_end": "\0"}
ROOT_USER = {"name": "root", "password": "rootpw"}
"""The user that every scenario with authentication has."""


def version(etcd: peers.Peer) -> tuple[int, int]:
    """Of an etcd, which is named after it."""
    major, minor, *_ = etcd.name.split()[1].split(".")
    return int(major), int(minor)


class Foreign:
    """The foreign client's process."""

    def __init__(self, log: Path) -> None:
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [FOREIGN, Path(__file__).with_name("foreign.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def do(self, what: str, **order: Any) -> dict[str, Any]:
        """Have one thing done; the answer as plain data."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": what, **order}) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class Running:
    """A program that goes on while other steps are done."""

    def __init__(self, command: list[str]) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True)
        self.lines: queue.Queue[str] = queue.Queue()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(END)

    def write(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def read(self, count: int) -> tuple[list[str], bool]:
        """The next lines (0: all up to the end), and whether that many came."""
        found: list[str] = []
        while not count or len(found) < count:
            try:
                line = self.lines.get(timeout=LINE_TIMEOUT_S)
            except queue.Empty:
                return found, False
            if line == END:
                return found, not count
            found.append(line)
        return found, True

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class Side:
    """Members of one server and what is known of them."""

    def __init__(self, peer: peers.Peer, directory: Path, count: int, extra: list[str]) -> None:
        directory.mkdir(parents=True)
        self.peer = peer
        self.count = count
        quiet = [] if peer.name == "ours" else list(peer.quiet)
        self.members = Members(directory, count, [*extra, *quiet], peer.command)
        self.foreign = Foreign(directory / "foreign.log")
        self.running: dict[str, Running] = {}
        self.values: dict[str, int | str] = {}
        self.names = Names()
        self.reserved: dict[str, Member] = {}

    def start(self) -> None:
        """Start all members, and wait until each has told the others its addresses."""
        self.members.start()

        def told() -> bool:
            listed = self.answered("Cluster/MemberList")["members"]
            return all(member.get("clientURLs") for member in listed)

        until("client URLs of all members", told)

    def close(self) -> None:
        try:
            self.end_running()
        finally:
            self.foreign.close()
            self.members.close()

    def end_running(self) -> None:
        """End what a scenario left behind: programs that go on, and members that it added."""
        for running in self.running.values():
            running.close()
        self.running.clear()
        while len(self.members.members) > self.count:
            added = self.members.members.pop()
            if added.process is not None:
                added.process.kill()
                added.process.wait()
            # Another of this name is to begin as a new one.
            shutil.rmtree(added.data, ignore_errors=True)
        self.continue_all()

    def continue_all(self) -> None:
        """Let stopped members go on."""
        for member in self.members.members:
            if member.process is not None:
                member.send(signal.SIGCONT)
        self.members.wait()

    def check(self) -> None:
        """Fail at once when a member has ended, which would keep each later step waiting."""
        for member in self.members.members[: self.count]:
            ended = member.process is not None and member.process.poll() is not None
            assert not ended, f"{member.name} of {self.peer.name} has ended, see {member.log}"

    def member(self, at: str) -> Member:
        """The member of a name or role."""
        name = self.values.get(f"{at or 'leader'}_name", at or self.members.members[0].name)
        return next(member for member in self.members.members if member.name == name)

    def address(self, at: str) -> str:
        return self.member(at).client_url.removeprefix("http://")

    def call(
        self, method: str, request: Any = None, at: str = "", metadata: Any = None, patience: float = 60.0
    ) -> dict[str, Any]:
        asked = {"method": method, "request": request or {}, "metadata": metadata or {}, "patience": patience}
        return self.foreign.do("call", at=self.address(at), **asked)

    def answered(self, method: str, request: Any = None) -> dict[str, Any]:
        """The answer of a call that may be made twice, once there is one: a leader may just have been lost."""
        found: dict[str, Any] = until(f"an answer to {method}", lambda: self.call(method, request).get("response"))
        return found

    def fetch(self, path: str, at: str) -> dict[str, Any]:
        """Status and body of a plain GET."""
        try:
            with urllib.request.urlopen(self.member(at).client_url + path, timeout=HTTP_TIMEOUT_S) as answer:
                return {"status": answer.status, "type": answer.headers["Content-Type"], "body": answer.read().decode()}
        except urllib.error.HTTPError as error:
            return {"status": error.code, "type": error.headers["Content-Type"], "body": error.read().decode()}

    def empty(self) -> int:
        """Take away all keys and leases; returns the revision."""
        self.foreign.do("reset")
        self.end_running()
        self.forget_users()
        for lease in self.answered("Lease/LeaseLeases").get("leases", []):
            self.call("Lease/LeaseRevoke", {"ID": lease["ID"]})
        return int(self.answered("KV/DeleteRange", ALL_KEYS)["header"]["revision"])

    def forget_users(self) -> None:
        """Turn authentication off, if it is on, and take away all users and roles."""
        token = self.call("Auth/Authenticate", ROOT_USER).get("response", {}).get("token", "")
        self.call("Auth/AuthDisable", metadata={"token": token} if token else {})
        for user in self.call("Auth/UserList")["response"].get("users", []):
            self.call("Auth/UserDelete", {"name": user})
        for role in self.call("Auth/RoleList")["response"].get("roles", []):
            self.call("Auth/RoleDelete", {"role": role})

    def align(self, revision: int) -> None:
        """Bring the revision, at least two below it, up to `revision`; leaves no key."""
        done = self.call("KV/Put", {"key": ALIGN_KEY})
        while done["response"]["header"]["revision"] < revision - 1:
            done = self.call("KV/Put", {"key": ALIGN_KEY})
        self.call("KV/DeleteRange", {"key": ALIGN_KEY})

    def learn(self, base: int) -> None:
        """Begin a scenario at revision `base`: its variables, and names for the ids that are there now."""
        self.values = {"base": base}
        self.names = Names(int(self.call("Auth/AuthStatus").get("response", {}).get("authRevision", 0)))
        self.reserve("new")
        listed = self.answered("Cluster/MemberList")
        self.names.add(listed["header"]["cluster_id"], "cluster")
        leader = until("leader", lambda: self.answered("Maintenance/Status").get("leader"))
        others = [member for member in listed["members"] if member["ID"] != leader]
        roles = ["leader", *(f"follower{number or ''}" for number in range(len(others)))]
        ordered = [*(member for member in listed["members"] if member["ID"] == leader), *others]
        for role, member in zip(roles, ordered, strict=True):
            self.know(role, member["ID"], member["name"])

    def know(self, role: str, identity: int, name: str) -> None:
        """Name a member by its role."""
        member = next(member for member in self.members.members if member.name == name)
        self.values |= {f"{role}_name": name, role: identity}
        self.names.add(identity, role)
        self.names.add(name, f"{role}_name")
        self._know_urls(role, member)

    def _know_urls(self, role: str, member: Member) -> None:
        self.values |= {f"{role}_peer": member.peer_url, f"{role}_client": member.client_url}
        for url, name in ((member.client_url, f"{role}_client"), (member.peer_url, f"{role}_peer")):
            self.names.add(url, name)
            self.names.add(url.removeprefix("http://"), name)

    def reserve(self, name: str) -> None:
        """Addresses for a member that a scenario may add, and their variables."""
        client, peer = free_ports(2)
        extra = list(self.members.extra)
        member = Member(name, self.members.directory, client, peer, extra, command=self.members.command)
        self._know_urls(name, member)
        self.reserved[name] = member

    def save(self, name: str, value: int | str) -> None:
        """Keep a variable; one that ends in `_id` or `_token` is shown by its name from now on."""
        self.values[name] = value
        if name.endswith(("_id", "_token")):
            self.names.add(value, name)


def run_program(script: str, side: Side, at: str) -> Any:
    """What a script of this folder prints, run by the foreign client's interpreter against a member."""
    done = subprocess.run(
        [FOREIGN, Path(__file__).with_name(script), side.address(at)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": ""},
    )
    if done.returncode:
        return {STUCK: done.stderr.splitlines()[-3:]}
    return json.loads(done.stdout)
