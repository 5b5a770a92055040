"""What must differ between two servers gets the same names on both sides; everything else is compared as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from zlib import crc32

LONGEST_TEXT = 300
"""Characters of a text that is shown as it is."""
SHOWN_OF_LONG = 20

MEASURES = {
    **dict.fromkeys(("raft_term", "raftTerm", "RaftTerm"), "<term>"),
    **dict.fromkeys(("raftIndex", "RaftIndex", "raftAppliedIndex", "RaftAppliedIndex"), "<index>"),
    **dict.fromkeys(("dbSize", "DBSize", "dbSizeInUse", "DBSizeInUse"), "<bytes>"),
    "took": "<time>",
}
"""Fields whose value is a server's own business; that there is one, and not zero, is compared."""

USERS_REVISION = ("authRevision",)
UNORDERED = ("keys", "members")
"""A lease's keys come in any order, members by their ids."""
HEXADECIMAL = ("x", "16x", "016x")
"""How etcdctl prints ids."""
VERSION = re.compile(r"(?<![\d.])\d+\.\d+\.\d+(?![\d.])")
NOISE = re.compile(r"(?<=took = )\S+s|(?<=remaining\()\d+(?=s\))|(?<=^\"TTL\" : )\d+|(?<=/)[0-9a-f]{14,16}$")
"""Times, and the leases that keys of elections and locks end with."""
GRANTED = {"grantedTTL": "TTL", "granted-ttl": "ttl"}
"""Of a lease whose time runs, and what is left of that: a second more or less."""


class Names:
    """The names of one side's ids and addresses. Revisions of users and roles are shown from `users_revision` on: they
    count what was done before, which differs."""

    def __init__(self, users_revision: int = 0) -> None:
        self.users_revision = users_revision
        self.names: dict[str, str] = {}
        self.pattern = re.compile(r"(?!)")

    def add(self, value: int | str, name: str) -> None:
        """`value` is shown as `<name>`: a number in decimal and hexadecimal, a text where it stands as a word."""
        texts = [str(value), *(format(value, form) for form in HEXADECIMAL)] if isinstance(value, int) else [value]
        self.names |= dict.fromkeys(texts, f"<{name}>")
        longest = sorted(map(re.escape, self.names), key=len, reverse=True)
        self.pattern = re.compile(rf"(?<!\w)(?:{'|'.join(longest)})(?!\w)")

    def text(self, text: str) -> str:
        """A text with names put in; of a long one only its beginning, length and checksum."""
        text = self.pattern.sub(lambda found: self.names[found[0]], text)
        text = VERSION.sub("<version>", NOISE.sub("<...>", text))
        if len(text) <= LONGEST_TEXT:
            return text
        return f"{text[:SHOWN_OF_LONG]}... ({len(text)} characters, {crc32(text.encode()):08x})"

    def data(self, thing: Any) -> Any:
        """Plain data with names and measures put in."""
        if isinstance(thing, Mapping):
            running = {left for granted, left in GRANTED.items() if thing.get(granted) and int(thing.get(left, 0)) > 0}
            return {key: "<left>" if key in running else self._field(key, value) for key, value in thing.items()}
        if isinstance(thing, list):
            return [self.data(one) for one in thing]
        if isinstance(thing, str):
            return self.text(thing)
        if isinstance(thing, int) and not isinstance(thing, bool):
            return self.names.get(str(thing), thing)
        return thing

    def _field(self, key: str, value: Any) -> Any:
        if key in MEASURES and value:
            return MEASURES[key]
        if key in USERS_REVISION:
            return type(value)(int(value) - self.users_revision)
        return sorted(self.data(value), key=str) if key in UNORDERED and value else self.data(value)

    def output(self, text: str) -> list[Any]:
        """Lines of a program's output; of its structured log lines only the errors that they tell."""
        return [self._line(line) for line in text.splitlines()]

    def _line(self, line: str) -> Any:
        if line.startswith("{"):
            data = json.loads(line)
            return self.text(f"log: {data.get('error', '')}") if "level" in data else self.data(data)
        key, separator, value = line.partition(" : ")
        key = key.strip('"')
        if separator and key in MEASURES and value != "0":
            return f"{key} : {MEASURES[key]}"
        return self.text(line)


def merged(responses: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """A watch stream's responses by watch id, events that follow each other in one response.

    Which of two watches is answered first, and how many revisions travel together, is the server's choice.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for response in responses:
        mine = found.setdefault(str(response.get("watch_id", 0)), [])
        if mine and response.get("events") and mine[-1].get("events"):
            mine[-1] = {**response, "events": [*mine[-1]["events"], *response["events"]]}
        else:
            mine.append(response)
    return dict(sorted(found.items()))


def pick(answer: Any, path: str) -> Any:
    """The part of an answer at a dotted path of keys and positions."""
    for part in path.split("."):
        answer = answer[int(part)] if isinstance(answer, list) else answer[part]
    return answer
