"""Every verb's help ends with an example, which the verb itself can read."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command

from cli.dock import verbs
from cli.fleetctl import app as fleetctl
from cli.kvctl import app as kvctl
from cli.kvctl import commandline
from cli.lab import app as lab

PROGRAMS = {
    "dock": verbs.app,
    "fleetctl": fleetctl.build(list(fleetctl.COMMANDS)),
    "fleet-lab": lab.app,
    "kvctl": kvctl.build(kvctl.COMMANDS),
}
ELSEWHERE = {("dock", "run"), ("dock", "create"), ("dock", "start"), ("kvctl", "bench")}
"""Read by docker's own rules in `cli.dock.run`, or by kvload."""


def leaves(path: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every verb below a command, with the words that lead to it."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from leaves((*path, name), inner)
    if not hasattr(command, "commands"):
        yield path, command


def own(words: list[str]) -> list[str]:
    """A command line without kvctl's global flags, which may stand anywhere."""
    if words[0] != "kvctl":
        return words
    rest = commandline.arranged(words[1:])
    while rest[0].startswith("-"):
        del rest[: 2 if rest[0] in commandline.VALUED else 1]
    return ["kvctl", *rest]


VERBS = {path: one for name, app in PROGRAMS.items() for path, one in leaves((name,), get_command(app))}


@pytest.mark.parametrize("path", sorted(VERBS.keys() - ELSEWHERE), ids=" ".join)
def test_a_verb_has_an_example_that_it_reads(path: tuple[str, ...]) -> None:
    found = re.match(r"Examples?:  (.*?)(   \||$)", VERBS[path].epilog or "")
    assert found, f"{' '.join(path)} --help has no example"
    words = own(shlex.split(found[1].partition("<")[0]))
    assert tuple(words[: len(path)]) == path
    VERBS[path].make_context(path[-1], words[len(path) :])
