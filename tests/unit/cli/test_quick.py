"""Commands answer at once: what they cost the processor, and what they need not import."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
RUNS = 5
LIMIT_S = 0.2
"""The bound on an answer; processor time, since wall time is other programs' too on a busy machine."""
HEAVY = ("pydantic", "grpc", "rich", "aiohttp", "asyncio", "zeroconf")


def cost(*argv: str) -> float:
    """Seconds of processor time of the cheapest of some runs."""
    found = []
    for _ in range(RUNS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([BIN / argv[0], *argv[1:]], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return min(found)


@pytest.mark.parametrize(
    "command",
    [
        "fleetctl --help",
        "fleetctl list-machines --endpoint unix:///none",
        "fleetctl start nothing --endpoint unix:///none",
        "kvctl --help",
        "kvctl --command-timeout 10ms --endpoints 127.0.0.1:1 get x",
        "dock --help",
        "dock ps",
        "fleet-lab --help",
        "fleet-lab status --name nolab",
        "fleetd --help",
        "kvstore --help",
    ],
)
def test_an_answer_takes_less_than_the_bound(command: str) -> None:
    took = cost(*command.split())
    print(f"{command}: {took * 1000:.0f} ms")
    assert took < LIMIT_S


@pytest.mark.parametrize(
    "module",
    ["cli.fleetctl.app", "cli.fleetctl.lists", "cli.fleetctl.units", "cli.kvctl.app", "cli.dock.app", "cli.lab.app"],
)
def test_commands_import_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & {set(HEAVY)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
