"""A client program with a server of its own, and what it says, with names for what must differ."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.peers import Peer
from tests.conformance.members import Member, Members

TIMEOUT_S = 90.0
NUMBER = "<n>"
DECIMAL = r"(\d+)"
"""The group of a pattern that keeps a decimal id; others are hexadecimal."""
USAGE = b"\nUSAGE:\n"
"""Stands in the help that etcdctl prints for mistakes on the command line."""
FORMS = ("simple", "json", "fields")
"""Output formats that are text and that most verbs have."""
INITIAL = "ETCD_INITIAL_CLUSTER"
MEMBERS = re.compile(r'("members":\[\{)(.*)(\}\])')
_COUNTS = "raft_term|raftTerm|raftIndex|raftAppliedIndex|dbSize|dbSizeInUse|ttl|TTL"
NOISE = (
    (
        re.compile(rf'("(?:{_COUNTS})":)\d+'),
        rf"\1{NUMBER}",
    ),
    (re.compile(r'("(?:RaftTerm|RaftIndex|RaftAppliedIndex|DBSize|TTL)" : )\d+'), rf"\1{NUMBER}"),
    (re.compile(r"(took = |took |\"took\":\"|\"Took\" : )[^ \"|]+s\b"), r"\1<time>"),
    (re.compile(r"(Member|cluster) +<"), r"\1 <"),
    (re.compile(r"(remaining\()\d+"), rf"\1{NUMBER}"),
    (re.compile(r"(\d+\.\d+\.\d+, )[\d.]+ \w?B, (\w+, \w+), \d+, \d+, \d+,"), r"\1<size>, \2, <n>, <n>, <n>,"),
    (re.compile(r"\b(?:etcdctl|kvctl)\b"), "<client>"),
    # Ids in it have lengths of their own.
    (re.compile(r"(received message larger than max \()\d+"), rf"\1{NUMBER}"),
    (re.compile(r"(version: )\S+"), r"\1<version>"),
    (re.compile(r"\b(lock/|vote/)[0-9a-f]+"), r"\1<lease>"),
    (re.compile(r'("key":")(?:bG9jay|dm90ZS)\w+=*'), r"\1<key>"),
    (re.compile(r'("lease":|"Lease" : )[1-9]\d+'), r"\1<lease>"),
)
LOOSE = re.compile(r"(?<= )[\d.]+ \w?B(?= \|)|(?<= )[\d.]+ms(?= \|)|(?<= )\d+(?= \|)")
"""Cells of a table that are a server's own business; the table's widths go with them."""


@dataclass(frozen=True)
class Line:
    """A command line, what is typed to it, and what to keep of what it prints."""

    words: str
    stdin: str = ""
    save: Mapping[str, str] = field(default_factory=dict)
    """Name -> pattern whose group is kept, for `{name}` in later lines; ids that have a name are shown by it."""
    env: Mapping[str, str] = field(default_factory=dict)
    loose: bool = False
    """A table whose cells are a server's own business."""
    ordered: bool = True
    """Whether the order of lines matters."""


@dataclass(frozen=True)
class Told:
    """What a command line gave."""

    code: int
    out: list[str]
    error: str


def read(path: Path) -> list[Line]:
    """Command lines from a file, one a line, with what belongs to each below it: `> ` a line typed to it (one that ends
    with a backslash has no end), `= name pattern` what to keep, `+ NAME=value` its environment. `-w *` is one for each
    output format. Before it may stand `~` (loose) or `?` (not ordered); `#` begins a comment."""
    found: list[Line] = []
    for text in path.read_text().splitlines():
        mark, _, rest = text.partition(" ")
        last = found[-1] if found else Line("")
        match mark:
            case "" | "#":
                continue
            case ">":
                typed = rest[:-1] if rest.endswith("\\") else f"{rest}\n"
                found[-1] = replace(last, stdin=last.stdin + typed)
            case "=":
                name, _, pattern = rest.partition(" ")
                found[-1] = replace(last, save={**last.save, name: pattern})
            case "+":
                name, _, value = rest.partition("=")
                found[-1] = replace(last, env={**last.env, name: value})
            case _:
                words = rest if mark in "~?" else text
                found.append(Line(words, loose=mark == "~", ordered=mark != "?"))
    return [each for line in found for each in _forms(line)]


def _forms(line: Line) -> list[Line]:
    if not line.words.endswith("-w *"):
        return [line]
    return [replace(line, words=f"{line.words[:-1]}{form}") for form in FORMS]


def _sorted_members(text: str) -> str:
    """Members come by their ids, which differ from cluster to cluster."""
    name, quote, members = text.partition('="')
    if name == INITIAL:
        return f'{name}{quote}{",".join(sorted(members.rstrip(chr(34)).split(",")))}"'
    return MEMBERS.sub(lambda found: found[1] + "},{".join(sorted(found[2].split("},{"))) + found[3], text)


class Tool:
    """A client program and its server, a new one."""

    def __init__(self, command: list[str], peer: Peer, directory: Path, members: int = 1) -> None:
        self.command = command
        self.members = Members(directory, members, command=peer.command)
        self.values: dict[str, str] = {}
        self.names: dict[str, str] = {}

    def start(self) -> None:
        """Start the server, and name what it is."""
        self.members.start()
        self.name("cluster", int(self.members.status(self.members.members[0])["header"]["cluster_id"]))
        for role, member in zip(self._roles(), self._ordered(), strict=True):
            status: dict[str, Any] = self.members.status(member)
            self.name(role, int(status["header"]["member_id"]))
            for url, what in ((member.client_url, "client"), (member.peer_url, "peer")):
                self.values[f"{role}_{what}"] = url
                self.names[url] = self.names[url.removeprefix("http://")] = f"<{role}_{what}>"
            if len(self.members.members) > 1:
                self.names[member.name] = f"<{role}_name>"

    def _roles(self) -> list[str]:
        alone = len(self.members.members) == 1
        return ["m0"] if alone else ["leader", "follower", "other"]

    def _ordered(self) -> list[Member]:
        leader = self.members.leader()
        return [leader, *(member for member in self.members.members if member is not leader)]

    def name(self, name: str, number: int) -> None:
        """Show an id, decimal or in hexadecimal, by a name, and keep it in hexadecimal for `{name}`."""
        self.values[name] = f"{number:x}"
        self.names |= dict.fromkeys([str(number), f"{number:x}", f"{number:016x}"], f"<{name}>")

    def argv(self, line: Line) -> list[str]:
        """The whole command line."""
        urls = ",".join(member.client_url for member in self.members.members)
        endpoints = [] if "--endpoints" in line.words else ["--endpoints", urls]
        return [*self.command, *endpoints, *(_filled(word, self.values) for word in shlex.split(line.words))]

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """What the program runs with."""
        return {**os.environ, "ETCDCTL_API": "3", **more}

    def run(self, line: Line) -> Told:
        """Run it, and say what it gave."""
        done = subprocess.run(
            self.argv(line),
            input=_filled(line.stdin, self.values).encode(),
            capture_output=True,
            timeout=TIMEOUT_S,
            env=self.environment(line.env),
        )
        out = "" if USAGE in done.stdout else done.stdout.decode("latin-1")
        for name, pattern in line.save.items():
            match = re.search(pattern, out)
            assert match, f"{line.words}: no {pattern} in {out!r} {done.stderr.decode()!r}"
            self.name(name, int(match[1], 10 if DECIMAL in pattern else 16))
        # What etcdctl logs is no answer to its user.
        errors = [each for each in done.stderr.decode("latin-1").splitlines() if not each.startswith('{"level":')]
        lines = [self.plain(each, line) for each in out.split("\n")]
        return Told(
            done.returncode, lines if line.ordered else sorted(lines), self.plain(errors[-1] if errors else "", line)
        )

    def plain(self, text: str, line: Line) -> str:
        """A line of output with names put in."""
        longest = sorted(map(re.escape, self.names), key=len, reverse=True)
        text = re.sub(rf"(?<!\w)(?:{'|'.join(longest)})(?!\w)", lambda found: self.names[found[0]], text)
        for pattern, shown in NOISE:
            text = pattern.sub(shown, text)
        text = _sorted_members(text)
        return re.sub(r"  +|--+", "-", LOOSE.sub(NUMBER, text)) if line.loose else text

    def close(self) -> None:
        """End the server."""
        self.members.close()


def _filled(text: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], found[0]), text)
