"""Native programs that fleetd starts and that outlive it: the store, its gateway, the presence holder.

A program is known by pid and start time, written to the run directory before anything depends on it, so that the next
fleetd adopts it. Its end is seen through a pidfd, without polling; what ends is started again with a growing pause.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

log = logging.getLogger("fleetd.processes")

FIRST_PAUSE_S = 0.1
MAX_PAUSE_S = 5.0
STEADY_S = 3.0


def start_time(pid: int) -> int | None:
    """Start of a process in clock ticks since boot (proc(5), field 22 of stat), or None when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


class Program:
    """One program kept running: adopted when it is there, started when it is not, watched until told to stop."""

    def __init__(self, name: str, argv: Sequence[str], run_dir: Path, log_dir: Path, env: Mapping[str, str]) -> None:
        self.adopts = True
        """Whether one that runs already is taken over; otherwise it is ended and started anew."""
        self.name = name
        self.argv = list(argv)
        self.env = dict(env)
        self._record = run_dir / f"{name}.pid"
        self._log = log_dir / f"{name}.log"
        self.pid: int | None = None
        self.started = asyncio.Event()
        self._child: subprocess.Popen[bytes] | None = None

    def _adopt(self) -> bool:
        try:
            record = json.loads(self._record.read_text())
        except (OSError, ValueError):
            return False
        if self.adopts and record.get("argv") == self.argv and start_time(record["pid"]) == record["start"]:
            self.pid = int(record["pid"])
            return True
        if start_time(record["pid"]) == record["start"]:
            # The same program, of no use as it is: it must go before its successor can have its sockets.
            self.pid = int(record["pid"])
        return False

    def _start(self) -> None:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as sink:
            child = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env={**os.environ, **self.env},
                start_new_session=True,
                close_fds=True,
            )
        self._child = child
        self.pid = child.pid
        fresh = self._record.with_suffix(".new")
        fresh.write_text(json.dumps({"pid": child.pid, "start": start_time(child.pid), "argv": self.argv}))
        fresh.replace(self._record)
        log.info("started %s, pid %d", self.name, child.pid)

    async def _gone(self) -> None:
        """Return when the process of `self.pid` has ended."""
        assert self.pid is not None
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(fd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(fd)
            os.close(fd)
        if self._child is not None and self._child.pid == self.pid:
            self._child.wait()
            log.warning("%s, pid %d, ended with %d", self.name, self.pid, self._child.returncode)

    async def run(self) -> None:
        """Keep it running until cancelled; cancelling leaves it running, for the next fleetd."""
        pause = FIRST_PAUSE_S
        if self._adopt():
            log.info("adopted %s, pid %d", self.name, self.pid or 0)
        else:
            if self.pid is not None:
                await self.stop()
            self._start()
        while True:
            self.started.set()
            since = asyncio.get_running_loop().time()
            await self._gone()
            self.started.clear()
            steady = asyncio.get_running_loop().time() - since > STEADY_S
            pause = FIRST_PAUSE_S if steady else min(pause * 2, MAX_PAUSE_S)
            await asyncio.sleep(pause)
            self._start()

    def replace(self, argv: Sequence[str]) -> None:
        """Go on with other arguments: SIGTERM now, and `run` starts it anew."""
        if self.argv == list(argv):
            return
        self.argv = list(argv)
        if self.pid is not None and self.started.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    async def stop(self, patience: float = 10.0) -> None:
        """SIGTERM, then SIGKILL after `patience` seconds."""
        if self.pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
            try:
                async with asyncio.timeout(patience):
                    await self._gone()
            except TimeoutError:
                os.kill(self.pid, signal.SIGKILL)
                await self._gone()
