"""Lab machines on disks that lose what was not synced; nothing stands in for the disks, a sleep does for fleetd."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.cgroups import Cgroup
from cli.lab import switch
from cli.lab.lab import Lab
from tests.disk.mounted import missing

ROOT = Path(__file__).parents[3]
DATA = "/var/lib/fleetd"
Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(missing()), reason=missing())]


def ours(name: str) -> list[int]:
    """The host's pids of a lab's disks."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            group, program = (path / "cgroup").read_text(), (path / "comm").read_text()
        except OSError:
            continue
        if program == "fleet-disk\n" and f"/fleet-lab/{name}/" in group:
            found.append(int(path.name))
    return found


def lab(name: str, folder: Path, *options: str) -> Iterator[Run]:
    """`fleet-lab` on a lab of two machines that goes down afterwards, and a look for what is left of it."""

    def call(*args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "cli.lab.app", *args],
            cwd=ROOT,
            env={**os.environ, "FLEET_LAB": name},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    try:
        call("up", "-n", "2", "--dir", str(folder), "--daemon", "sleep 1000", *options)
        yield call
    finally:
        call("down", check=False)
        assert not switch.exists(name)
        assert not Cgroup(name, root="fleet-lab").exists()
        assert not folder.exists()
        assert not ours(name)
        assert name not in Path("/proc/self/mountinfo").read_text()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    yield from lab(f"d{os.getpid()}", tmp_path / "lab", "--disks")


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Run]:
    yield from lab(f"e{os.getpid()}", tmp_path / "other", "--disks")


def inside(run: Run, machine: str, script: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return run("exec", machine, "--", "sh", "-c", f"cd {DATA}; {script}", check=check)


def test_a_kill_takes_what_was_not_synced_of_all_at_once(run: Run) -> None:
    for one in ("m1", "m2"):
        inside(run, one, "echo synced > kept; sync kept .; echo lost > gone; echo more >> kept; echo x > images/there")
    told = run("kill", "m1", "m2").stdout
    assert told == f"m1: {len('lost') + len('more') + 2} bytes were not synced\nm2: 10 bytes were not synced\n"
    for one in ("m1", "m2"):
        run("start", one)
        assert inside(run, one, "ls; cat kept images/there").stdout.split() == [
            *("containers", "images", "kept", "synced", "x")
        ]


def test_a_torn_write_is_torn_the_same_way_again(run: Run) -> None:
    found = set()
    for seed in ("1", "1", "2"):
        inside(run, "m1", "printf %4096s > f; sync f .; printf %4096s | tr ' ' x | dd of=f conv=notrunc bs=4096 2>&1")
        assert f"--seed {seed}" in run("kill", "m1", "--loss", "scattered", "--seed", seed).stdout
        run("start", "m1")
        text = inside(run, "m1", "cat f").stdout
        assert {text[at : at + 512] for at in range(0, 4096, 512)} == {" " * 512, "x" * 512}
        found.add((seed, text))
    assert len(found) == len({text for _, text in found}) == 2


def test_a_disk_fails_is_full_and_slow_until_it_is_well(run: Run) -> None:
    inside(run, "m1", "echo x > f; sync f")
    assert "sync=EIO" in run("disk", "m1", "--eio", "sync", "--eio", "read").stdout
    for script in ("sync f", "cat f"):
        assert "Input/output error" in inside(run, "m1", script, check=False).stderr
    assert inside(run, "m2", "echo x > f; sync f").returncode == 0
    assert "write=ENOSPC" in run("disk", "m1", "--well", "--full").stdout
    assert "No space left" in inside(run, "m1", "echo x > g", check=False).stderr
    assert "write=none sync=none slow=400" in run("disk", "m1", "--well", "--slow", "400").stdout
    inside(run, "m1", "echo x > g")
    began = time.monotonic()
    inside(run, "m1", "sync g")
    assert time.monotonic() - began > 0.4
    run("kill", "m1")
    run("start", "m1")
    assert "slow=0" in run("disk", "m1").stdout


def test_two_labs_have_disks_side_by_side_and_all_goes_though_parts_were_killed(run: Run, other: Run) -> None:
    inside(run, "m1", "echo one > f; sync f .")
    inside(other, "m1", "echo other > f; sync f .")
    assert (len(ours(f"d{os.getpid()}")), len(ours(f"e{os.getpid()}"))) == (2, 2)
    assert inside(run, "m1", "cat f").stdout == "one\n"
    for pid in ours(f"e{os.getpid()}"):
        os.kill(pid, signal.SIGKILL)
    assert inside(other, "m1", "cat f", check=False).returncode != 0
    assert "does not answer" in other("disk", "m1", check=False).stderr
    other("kill", "m1")
    other("start", "m1")
    assert inside(other, "m1", "cat f").stdout == "other\n"
    # A machine's disk goes with its pid 1, however that ends.
    first = Lab.load(f"d{os.getpid()}").machine("m1").pid()
    assert first is not None
    os.kill(first, signal.SIGKILL)
    end = time.monotonic() + 60
    while len(ours(f"d{os.getpid()}")) > 1:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_has_no_disk_says_so(tmp_path: Path) -> None:
    for call in lab(f"f{os.getpid()}", tmp_path / "lab"):
        assert "no disk of its own: make the lab with `fleet-lab up --disks`" in call("disk", "m1", check=False).stderr
        assert call("kill", "m1").stdout == ""
