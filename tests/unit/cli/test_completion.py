"""What a shell gets when it asks the commands for completion, by the real commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
TIMEOUT_S = 60


def ask(program: str, instruction: str, typed: str) -> str:
    """What `program` answers a shell that completes `typed`."""
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
    asked = {variable: instruction, "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split(" ")) - 1)}
    done = subprocess.run(
        [str(BIN / program)], env={**os.environ, **asked}, capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    return done.stdout


@pytest.mark.parametrize(
    ("program", "typed", "wanted"),
    [
        ("fleetctl", "fleetctl li", {"list-machines", "list-units", "list-unit-files"}),
        ("kvctl", "kvctl w", {"watch"}),
        ("fleet-lab", "fleet-lab restart", {"restart-daemon"}),
        ("dock", "dock im", {"images", "import"}),
    ],
)
def test_every_command_completes_its_verbs(program: str, typed: str, wanted: set[str]) -> None:
    assert set(ask(program, "complete_bash", typed).split()) == wanted


@pytest.mark.parametrize("program", ["fleetctl", "kvctl", "fleet-lab", "dock"])
def test_the_shells_script_asks_this_program(program: str) -> None:
    script = ask(program, "source_bash", program)
    assert f"complete -o default -F _{program.replace('-', '_')}_completion {program}" in script


def test_units_complete_to_nothing_where_no_fleetd_answers() -> None:
    assert ask("fleetctl", "complete_bash", "fleetctl status he").strip() == ""
