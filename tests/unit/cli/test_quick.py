"""Commands answer at once: what they need not import. `make bench` measures the time."""

from __future__ import annotations

import subprocess
import sys

import pytest

from agent.units import names
from cli.fleetctl import session

HEAVY = ("pydantic", "grpc", "rich", "aiohttp", "asyncio", "zeroconf")


@pytest.mark.parametrize(
    "module",
    ["cli.fleetctl.app", "cli.fleetctl.lists", "cli.fleetctl.units", "cli.kvctl.app", "cli.dock.app", "cli.lab.app"],
)
def test_commands_import_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & {set(HEAVY)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_what_is_said_twice_for_the_sake_of_speed_is_the_same() -> None:
    assert {kind.removeprefix(".") for kind in session.KINDS} == names.KINDS
