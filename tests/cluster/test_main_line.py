"""The whole path on real machines: the demo, and the README's tour as printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 480

pytestmark = pytest.mark.lab


def environment(lab: str) -> dict[str, str]:
    """Ours first in PATH, as an activated venv has it, and a lab of this test's own."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "FLEET_LAB": lab}


def test_the_demo_shows_all_of_it_and_leaves_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "examples/demo.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=environment("demo"),
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert "runs again" in done.stdout and "nothing is left" in done.stdout


def test_every_command_of_the_readmes_tour_works_as_printed() -> None:
    tour = re.search(r"## A tour.*?```console\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert tour is not None
    commands = [line.removeprefix("$ ") for line in tour[1].splitlines() if line.startswith("$ ")]
    assert len(commands) > 5
    said = {}
    try:
        for command in commands:
            done = subprocess.run(
                ["bash", "-o", "pipefail", "-c", command],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                env=environment("tour"),
                check=False,
            )
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
            said[command] = done.stdout
    finally:
        subprocess.run(
            ["fleet-lab", "down"], cwd=ROOT, env=environment("tour"), capture_output=True, timeout=60, check=False
        )
    assert "hello" in said["fleet-lab exec m3 -- kvctl get /greeting"]
    assert "running" in said["fleet-lab exec m1 -- fleetctl status nap"]
    assert "HelloService" in said["fleet-lab exec m1 -- fleetctl cat hello.service"]
