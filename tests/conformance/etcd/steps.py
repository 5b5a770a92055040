"""What a scenario is made of: steps for etcdctl, for raw gRPC calls and streams, and for plain HTTP.

Texts may name a variable of their side, with an offset and in hexadecimal if wanted: `{base+2}`, `{lease:x}`. `base` is
the revision at which the scenario begins, the same at both sides. A text that is one variable and nothing else stands
for its value, so that requests can hold numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Values = Mapping[str, int | str]
VARIABLE = re.compile(r"\{([a-z]\w*)([+-]\d+)?(:x)?\}")


@dataclass(frozen=True)
class Step:
    """Common to all: how it is compared."""

    at: str = field(default="", kw_only=True)
    """The member spoken to: a role (`leader`, `follower`) or a name (`m0`); etcdctl gets all members without it."""
    since: tuple[int, int] = field(default=(3, 4), kw_only=True)
    """The first etcd that answers as the newest does; beside an older one the step is left out."""
    save: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    """Variables to keep from the answer: name -> path into it (`header.revision`)."""


@dataclass(frozen=True)
class Ctl(Step):
    """Run etcdctl to its end; its output is compared as data with `-w json`, else line by line."""

    words: str
    stdin: str = ""


@dataclass(frozen=True)
class Begin(Step):
    """Start an etcdctl that goes on (`watch`, `lease keep-alive`)."""

    name: str
    words: str


@dataclass(frozen=True)
class Type(Step):
    """Write to the standard input of one that goes on."""

    name: str
    text: str


@dataclass(frozen=True)
class Lines(Step):
    """The next lines of one that goes on; `count` 0: all up to its end, and its exit code."""

    name: str
    count: int = 0


@dataclass(frozen=True)
class Call(Step):
    """A unary gRPC call; bytes are texts, a character a byte."""

    method: str
    request: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    patience: float = 60.0
    """Seconds after which the client gives it up."""


@dataclass(frozen=True)
class Open(Step):
    """Open a gRPC stream under a name."""

    name: str
    method: str = "Watch/Watch"
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Send(Step):
    """Send a request on a stream."""

    name: str
    request: Mapping[str, Any]


@dataclass(frozen=True)
class Take(Step):
    """Take from a stream until so many responses without events and so many events came, or with `end` its status."""

    name: str
    responses: int = 0
    events: int = 0
    end: bool = False
    whole: bool = False
    """Compare each response as it came, though a server is free to send events together or one by one."""


@dataclass(frozen=True)
class Close(Step):
    """Send nothing more on a stream."""

    name: str


@dataclass(frozen=True)
class Cancel(Step):
    """Go away from a stream."""

    name: str


@dataclass(frozen=True)
class Fetch(Step):
    """A plain HTTP GET on the client port."""

    path: str


@dataclass(frozen=True)
class Post(Step):
    """A POST on the JSON gateway; its answer is compared as data, of a stream so many `lines`."""

    path: str
    body: Any = field(default_factory=dict)
    """Data, or the text as it is sent."""
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"
    lines: int = 0


@dataclass(frozen=True)
class Program(Step):
    """A script of this folder, run by the foreign client's interpreter; what it prints is compared as data."""

    script: str


@dataclass(frozen=True)
class Join(Step):
    """Start a member that was added: `name`, listening at the variables `<name>_peer` and `<name>_client`."""

    name: str


@dataclass(frozen=True)
class Stop(Step):
    """Stop the members of these roles (SIGSTOP)."""

    roles: Sequence[str]


@dataclass(frozen=True)
class Continue(Step):
    """Let all stopped members go on."""


@dataclass(frozen=True)
class Until(Step):
    """Repeat a step until its compared answer holds `text`; that answer is compared."""

    step: Step
    text: str


@dataclass(frozen=True)
class Do(Step):
    """Do a step whose answer is not compared, since an older etcd gives another though it does the same."""

    step: Step


@dataclass(frozen=True)
class Scenario:
    """Steps that belong together, from a store without keys and leases."""

    name: str
    steps: Sequence[Step]
    members: int = 1
    since: tuple[int, int] = (3, 4)
    """The first etcd that answers as the newest does."""


def fill(thing: Any, values: Values) -> Any:
    """`thing` with its variables replaced, through dicts and lists."""
    if isinstance(thing, Mapping):
        return {key: fill(value, values) for key, value in thing.items()}
    if isinstance(thing, (list, tuple)):
        return [fill(value, values) for value in thing]
    if not isinstance(thing, str):
        return thing
    if (whole := VARIABLE.fullmatch(thing)) and not whole[3]:
        return _value(whole, values)
    return VARIABLE.sub(lambda found: str(_value(found, values)), thing)


def _value(found: re.Match[str], values: Values) -> int | str:
    value = values[found[1]]
    if found[2]:
        value = int(value) + int(found[2])
    return f"{value:x}" if found[3] else value
