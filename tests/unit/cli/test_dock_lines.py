"""The everyday `dock run` lines mean the same whether the short reader or docker's whole parser reads them."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

from agent.dockerapi.options import options_of
from cli.dock import plain
from cli.dock.line import read_all
from cli.dock.wish import Wish

EVERYDAY = [
    "busybox",
    "--rm busybox true",
    "-it busybox sh -c 'echo $A'",
    "-d --name one busybox sleep 300",
    "--detach --name=one --network none busybox",
    "-i --rm --net=host --network= box:1 --rm -d",
    "--interactive --tty --rm --name -x busybox ''",
]
OTHERS = [
    "",
    "--rm",
    "--name",
    "-- busybox",
    "-",
    "-e A=1 busybox",
    "--rm=false busybox",
    "-i=false busybox",
    "-itv /a:/b busybox",
    "--no-such-flag busybox",
    "-d -a stdout busybox",
    "--rm --restart always busybox",
]


def own(wish: Wish) -> dict[str, object]:
    return {name: value for name, value in vars(wish).items() if name != "body"}


@pytest.mark.parametrize("line", EVERYDAY)
def test_both_readers_say_the_same(line: str) -> None:
    words = shlex.split(line)
    short, whole = plain.read(words), read_all(words)
    assert short is not None
    assert own(short) == own(whole)
    assert options_of(short.body, short.name) == options_of(whole.body, whole.name)
    for name in ("StdinOnce", "AttachStdin", "AttachStdout", "AttachStderr"):
        assert short.body[name] == whole.body[name]


@pytest.mark.parametrize("line", OTHERS)
def test_what_is_not_everyday_is_left_to_the_whole_parser(line: str) -> None:
    assert plain.read(shlex.split(line)) is None


def test_an_everyday_line_loads_neither_the_parser_nor_what_is_slow_to_load() -> None:
    """Each of these takes 5 to 60 ms of a start that is to take 100 in all."""
    script = (
        "import sys; before = set(sys.modules)\n"
        "from cli.dock import app, line, run; line.wish_of(['--rm', 'busybox'])\n"
        "slow = {'agent', 'aiohttp', 'dataclasses', 'inspect', 'pathlib', 'typer', 'typing'}\n"
        "print(*sorted(slow & set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
