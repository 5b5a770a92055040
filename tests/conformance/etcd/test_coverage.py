"""Whether the scenarios run every command of etcdctl's v3 API with every flag that it has."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conformance.etcd.scenarios import SCENARIOS
from tests.conformance.etcd.steps import Begin, Ctl, Do, Step, Until
from tests.conformance.members import etcdctl_path

pytestmark = pytest.mark.skipif(etcdctl_path() is None, reason="etcdctl is not here: run make setup")

HERE = Path(__file__).parent
ASKS_NO_SERVER = re.compile(r"completion \w+|help|version|migrate|snapshot (restore|status)")
"""They work on files or on nothing; `migrate` reads etcd's v2 data directory."""
MEASURES = re.compile(r"check (perf|datascale)")
"""They put, get and delete ranges for a minute, which others do; their output is figures."""
ELSEWHERE = {
    "snapshot save": "test_store_snapshots.py",
    "--cacert": "secured.py",
    "--cert": "secured.py",
    "--key": "secured.py",
    "--endpoints": "members.py",
}
"""Where it is run, if not by a scenario: it needs files, or certificates."""
SERVER_ONLY_BY_DIRECTORY = {("defrag", "data-dir")}
"""Flags that make a command work on files."""
OTHER_SERVER = {"dest-cacert", "dest-cert", "dest-key", "dest-insecure-transport"}
"""A mirror's other side is reached like the first."""
SEEN_BY_NO_SERVER = {
    *("command-timeout", "dial-timeout", "keepalive-time", "keepalive-timeout", "debug", "help", "insecure-transport"),
    *("insecure-discovery", "insecure-skip-tls-verify", "discovery-srv", "discovery-srv-name"),
}
"""How the client dials, waits and finds addresses."""


def said(*words: str) -> str:
    """The help of a command, or of all."""
    program = etcdctl_path()
    assert program is not None
    done = subprocess.run(
        [program, *words, "--help"], capture_output=True, text=True, env={**os.environ, "ETCDCTL_API": "3"}, timeout=20
    )
    return done.stdout


def flags_in(text: str) -> list[str]:
    return re.findall(r"--([a-z-]+)[=\[]", text)


def lines() -> list[str]:
    """Every command line in a scenario."""

    def of(step: Step) -> list[str]:
        if isinstance(step, (Until, Do)):
            return of(step.step)
        return [step.words] if isinstance(step, (Ctl, Begin)) else []

    return [line for scenario in SCENARIOS for step in scenario.steps for line in of(step)]


def missing() -> list[str]:
    """What is run nowhere."""
    everything = lines()
    known = said()
    commands = re.findall(r"^\t([a-z][a-z -]*?)\t", known.partition("COMMANDS:")[2].partition("OPTIONS:")[0], re.M)
    assert len(commands) > 40, f"etcdctl's help is not understood:\n{known}"
    found = []
    for command in (one.strip() for one in commands):
        if ASKS_NO_SERVER.fullmatch(command) or MEASURES.fullmatch(command) or command in ELSEWHERE:
            continue
        mine = [line for line in everything if f" {command} " in f" {line} "]
        if not mine:
            found.append(command)
        own = said(*command.split()).partition("OPTIONS:")[2].partition("GLOBAL OPTIONS")[0]
        for flag in flags_in(own):
            asks = flag != "help" and flag not in OTHER_SERVER and (command, flag) not in SERVER_ONLY_BY_DIRECTORY
            if asks and not any(re.search(rf"--{flag}\b", line) for line in mine):
                # Some have a short form too.
                short = re.search(rf"-(\w), --{flag}\b", own)
                if not (short and any(f" -{short[1]} " in f" {line} " for line in mine)):
                    found.append(f"{command} --{flag}")
    for flag in flags_in(known.partition("OPTIONS:")[2]):
        runs = any(f"--{flag}" in line for line in everything) or flag in SEEN_BY_NO_SERVER
        if not runs and f"--{flag}" not in ELSEWHERE:
            found.append(f"--{flag}")
    return found


def test_every_command_and_flag_is_run() -> None:
    left = missing()
    assert not left, f"no scenario runs: {', '.join(left)}"


@pytest.mark.parametrize(("what", "where"), ELSEWHERE.items())
def test_what_is_run_elsewhere_is(what: str, where: str) -> None:
    text = (HERE.parent / where).read_text()
    words = what.split()
    assert what in text or ", ".join(f'"{word}"' for word in words) in text


def test_what_is_not_run_would_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    few = [line for line in lines() if "make-mirror" not in line and "--from-key" not in line]
    monkeypatch.setattr(f"{__name__}.lines", lambda: few)
    assert {"make-mirror", "del --from-key"} <= set(missing())
