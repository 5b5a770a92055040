"""Processes that a benchmark starts, what they use, and their end: nothing that was started here outlives us."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

STOP_TIMEOUT_S = 10.0
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
MEMORY_FILE_SYSTEMS = ("tmpfs", "ramfs")


class BenchError(Exception):
    """A benchmark can't go on; the text is a sentence for the user."""


@dataclass(frozen=True)
class Memory:
    """Resident bytes of a process: its own, and those that are pages of files (programs, mapped data)."""

    anonymous: int
    file: int


class Process:
    """One program whose output goes to a file. The kernel kills it if we die first."""

    def __init__(self, command: list[str], log: Path) -> None:
        self.log = log
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command], stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )

    @property
    def pid(self) -> int:
        """setpriv becomes the program, so this is the program's own."""
        return self._process.pid

    def check(self) -> None:
        """Raises BenchError when the program has ended."""
        if (code := self._process.poll()) is not None:
            said = self.log.read_text(errors="replace")[-2000:]
            raise BenchError(f"{self._process.args!r} ended with {code}: {said}")

    def cpu_s(self) -> float:
        """Seconds of CPU of all its threads so far, from /proc/PID/stat (in steps of 10 ms)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS

    def memory(self) -> Memory:
        """From /proc/PID/status."""
        found = {}
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in ("RssAnon", "RssFile"):
                found[name] = int(value.split()[0]) * 1024
        return Memory(found["RssAnon"], found["RssFile"])

    def stop(self) -> None:
        """SIGTERM, then SIGKILL; returns once it is reaped."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


class Workspace:
    """A directory on a real disk. As a context manager it is removed at the end."""

    def __init__(self, parent: Path) -> None:
        kind = subprocess.run(
            ["stat", "--file-system", "--format=%T", parent], capture_output=True, text=True, check=True
        ).stdout.strip()
        if kind in MEMORY_FILE_SYSTEMS:
            raise BenchError(f"{parent} is in memory ({kind}), where a sync costs nothing; name another with --dir")
        self.path = Path(tempfile.mkdtemp(prefix="fleetd-bench-", dir=parent))

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def say(text: str) -> None:
    """Progress, where a person looks on; each text takes the place of the one before it."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
