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

CONFORMANCE = Path(__file__).parents[1]
ASKS_NO_SERVER = re.compile(r"completion \w+|help|version|migrate|snapshot (restore|status)")
"""They work on files or on nothing; `migrate` reads etcd's v2 data directory."""
FLAGS = "test_store_etcdctl_flags.py"
ELSEWHERE = {
    "snapshot save": "test_store_snapshots.py",
    "check datascale": FLAGS,
    **dict.fromkeys(("--cacert", "--cert", "--key"), "secured.py"),
    **dict.fromkeys(("--dest-cacert", "--dest-cert", "--dest-key", "--dest-insecure-transport"), FLAGS),
    **dict.fromkeys(("--insecure-transport", "--insecure-skip-tls-verify", "--debug"), FLAGS),
    **dict.fromkeys(("--command-timeout", "--dial-timeout", "--keepalive-time", "--keepalive-timeout"), FLAGS),
    **dict.fromkeys(("--discovery-srv", "--discovery-srv-name", "--insecure-discovery"), "test_store_discovery.py"),
    "--endpoints": "members.py",
}
"""Where it is run, if not by a scenario: it needs files, certificates, names or time."""
A_MINUTE = re.compile(r"check perf")
"""Puts for a minute at a rate of its own, which `check datascale` does at once; its other flags are that one's."""
BY_DIRECTORY = {("defrag", "data-dir")}
"""Flags that make a command work on files."""


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


def command_in(line: str, commands: list[str]) -> str:
    """Which command a line runs: the first that it names, and of those that begin there the longest."""
    places = [(found.start(), -len(one), one) for one in commands if (found := re.search(rf"(?<!\S){one}(?!\S)", line))]
    return min(places)[2] if places else ""


def missing() -> list[str]:
    """What is run nowhere."""
    everything = lines()
    known = said()
    named = re.findall(r"^\t([a-z][a-z -]*?)\t", known.partition("COMMANDS:")[2].partition("OPTIONS:")[0], re.M)
    commands = [one.strip() for one in named]
    assert len(commands) > 40, f"etcdctl's help is not understood:\n{known}"
    found = []
    for command in commands:
        if ASKS_NO_SERVER.fullmatch(command) or A_MINUTE.fullmatch(command):
            continue
        mine = [line for line in everything if command_in(line, commands) == command]
        if not mine and command not in ELSEWHERE:
            found.append(command)
        own = said(*command.split()).partition("OPTIONS:")[2].partition("GLOBAL OPTIONS")[0]
        for flag in flags_in(own):
            if flag == "help" or (command, flag) in BY_DIRECTORY or f"--{flag}" in ELSEWHERE:
                continue
            texts = [(CONFORMANCE / ELSEWHERE[command]).read_text()] if command in ELSEWHERE else mine
            # Some have a short form too.
            short = re.search(rf"-(\w), --{flag}\b", own)
            forms = rf"--{flag}(?![\w-])" + (rf"|(?<!\S)-{short[1]}(?!\S)" if short else "")
            if not any(re.search(forms, text) for text in texts):
                found.append(f"{command} --{flag}")
    for flag in flags_in(known.partition("OPTIONS:")[2]):
        runs = any(f"--{flag}" in line for line in everything)
        if not runs and flag != "help" and f"--{flag}" not in ELSEWHERE:
            found.append(f"--{flag}")
    return found


def test_every_command_and_flag_is_run() -> None:
    left = missing()
    assert not left, f"no scenario runs: {', '.join(left)}"


@pytest.mark.parametrize(("what", "where"), ELSEWHERE.items())
def test_what_is_run_elsewhere_is(what: str, where: str) -> None:
    text = (CONFORMANCE / where).read_text()
    words = what.split()
    assert what in text or ", ".join(f'"{word}"' for word in words) in text


def test_what_is_not_run_would_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    few = [line for line in lines() if "make-mirror" not in line and "--from-key" not in line]
    monkeypatch.setattr(f"{__name__}.lines", lambda: few)
    assert {"make-mirror", "del --from-key"} <= set(missing())
