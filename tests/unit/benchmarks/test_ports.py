"""Ports that several processes are given at once."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from benchmarks.ports import LOWEST, free_port

ASK = "from benchmarks.ports import free_port; print(free_port(), flush=True); input()"


def test_no_port_is_given_twice_while_who_was_given_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens on it yet, or any more: that it is not bound does not tell."""
    own = free_port()
    with subprocess.Popen([sys.executable, "-c", ASK], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        theirs = int(process.stdout.readline())
        chosen = iter([theirs, own, *range(LOWEST, LOWEST + 100)])
        monkeypatch.setattr(random, "randrange", lambda *_: next(chosen))
        assert free_port() not in (theirs, own)
        process.communicate(b"\n", timeout=60)
    chosen = iter([theirs])
    assert free_port() == theirs, "its process has ended"
