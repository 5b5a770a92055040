"""The processes of one unit: monitors spawned, found again, signalled, let go. What they tell becomes life's events.

Docker lines are `docker_steps`' affair; what an event leads to is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal as signals
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol, TypeVar

from agent.cgroups import Cgroup, CgroupError
from agent.exec_context import ContextError, Outcome, limits, monitor_command
from agent.isolation import Isolation
from agent.monitor import link as monitors
from agent.records import ProcessRecord
from agent.turns import Turns
from agent.units import life
from agent.units.command import Command
from agent.units.model import Unit

log = logging.getLogger(__name__)

T = TypeVar("T")
Permit = Callable[[Unit], Awaitable[None]]
ENDING = ("reload", "stop", "stop-post")
"""Phases that need no permit."""


class Tell(Protocol):
    """Takes an event. `reason` is the sentence that explains it; `ended` says that the slot is over and done with."""

    def __call__(self, event: life.Event, reason: str = "", *, ended: bool = False) -> None: ...


def boot_seconds(unix: float | None = None) -> float:
    """Seconds since this machine's boot: now, or at a Unix time of this boot."""
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    return now if unix is None else max(0.0, now - (time.time() - unix))


class Processes:
    """All monitors of one unit."""

    def __init__(
        self,
        unit: str,
        cgroup: Cgroup,
        tell: Tell,
        isolation: Isolation | None = None,
        permit: Permit | None = None,
        *,
        turns: Turns,
    ) -> None:
        """`isolation` is for the monitor of the main process; `permit` is awaited before anything starts."""
        self._isolation = isolation
        self._permit = permit
        self._turns = turns
        self._waiting: set[int] = set()
        """Slots that wait for their permit or turn."""
        self.unit = unit
        self.cgroup = cgroup
        self._tell = tell
        self._links: dict[int, monitors.Link] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._records: dict[int, ProcessRecord] = {}
        self._starting: dict[int, asyncio.Event] = {}

    def run(self, record: ProcessRecord, unit: Unit, command: Command, outcome: Outcome) -> None:
        """Start a command under a monitor of its own; what comes of it is told."""
        self._records[record.slot] = record
        self._starting[record.slot] = asyncio.Event()
        self._tasks[record.slot] = asyncio.create_task(
            self._live(record, self._spawn(record, unit, command, outcome)), name=f"{self.unit} #{record.slot}"
        )

    def adopt(self, record: ProcessRecord) -> None:
        """Go on with a monitor that an earlier fleetd started, whether it lives or left its exit record."""
        self._records[record.slot] = record
        self._tasks[record.slot] = asyncio.create_task(
            self._live(record, self._reconnect(record)), name=f"{self.unit} #{record.slot}"
        )

    async def _live(self, record: ProcessRecord, work: Awaitable[monitors.Link | None]) -> None:
        """One process from its monitor to its end; whatever goes wrong, its end is told and nobody waits for it."""
        slot = record.slot
        link: monitors.Link | None = None
        try:
            link = await work
            if link is not None:
                await self._listen(record, link)
        except Exception as error:
            if not isinstance(error, (ContextError, CgroupError, monitors.MonitorError, OSError)):
                log.exception("%s: process #%d", self.unit, slot)
            end = life.Exited(slot, boot_seconds(), unable=link is None, lost=link is not None)
            self._tell(end, str(error) or type(error).__name__, ended=True)
        finally:
            self._under_way(slot)

    async def _spawn(self, record: ProcessRecord, unit: Unit, command: Command, outcome: Outcome) -> monitors.Link:
        slot = record.slot
        if self._permit is not None and record.phase not in ENDING:
            await self._stand_still(slot, self._permit(unit))
        turn = self._turns.take()
        end_turn = await (self._stand_still(slot, turn) if self._turns.taken else turn)
        try:
            return await monitors.spawn(await asyncio.to_thread(self._prepare, record, unit, command, outcome))
        finally:
            end_turn()

    async def _stand_still(self, slot: int, awaited: Awaitable[T]) -> T:
        """Wait, with the unit's timeout standing still, unless `settle` gives it up."""
        self._tell(life.Paused(slot, boot_seconds()))
        self._waiting.add(slot)
        try:
            got = await awaited
        finally:
            self._waiting.discard(slot)
        self._tell(life.Resumed(slot, boot_seconds()))
        return got

    def _prepare(self, record: ProcessRecord, unit: Unit, command: Command, outcome: Outcome) -> monitors.MonitorSpec:
        """Look up and make what a process needs. It takes long enough to have a thread of its own."""
        service = unit.service
        assert service is not None
        forking = record.phase == "start" and service.type == "forking"
        main = record.phase == "start"
        notify = service.notify_access if service.notify_access != "exec" else "all"
        group = self.cgroup.child("payload" if main else "control")
        monitor_group = self.cgroup.child("monitor")
        process = monitor_command(unit, command, outcome)
        group.make()
        if main:
            group.limit(limits(service.resources))
        monitor_group.make()
        return monitors.MonitorSpec(
            id=f"{self.unit}#{record.slot}",
            run_dir=Path(record.run_dir),
            log_dir=Path(record.log_dir),
            command=process,
            type="forking" if forking else ("notify" if main and notify != "none" else "exec"),
            monitor_cgroups=monitor_group.paths(),
            payload_cgroups=group.paths(),
            notify=notify if main or service.notify_access in ("exec", "all") else "none",
            pid_file=Path(service.pid_file) if forking and service.pid_file else None,
            isolation=self._isolation if main else None,
        )

    async def _reconnect(self, record: ProcessRecord) -> monitors.Link | None:
        try:
            return await monitors.reconnect(Path(record.run_dir))
        except monitors.MonitorError:
            await self._gone(record)
            return None

    def _under_way(self, slot: int) -> None:
        started = self._starting.pop(slot, None)
        if started is not None:
            started.set()

    async def settle(self) -> None:
        """Return when no process is in the middle of being started, where a signal would miss it. What waits for its
        permit or turn is given up."""
        for slot in list(self._waiting):
            self._tasks[slot].cancel()
            self._under_way(slot)
            self._tell(life.Exited(slot, boot_seconds(), signal=int(signals.SIGTERM)), ended=True)
        for started in list(self._starting.values()):
            await started.wait()

    async def _gone(self, record: ProcessRecord) -> None:
        """The monitor is not there: its record has the last word, else its payload is ended and it counts as lost."""
        self._under_way(record.slot)
        try:
            exited = monitors.read_exit(Path(record.run_dir))
        except monitors.MonitorError as error:
            log.warning("%s: %s", self.unit, error)
            exited = None
        if exited is not None:
            self._exited(record.slot, exited)
            return
        try:
            group = self.cgroup.child("payload" if record.phase == "start" else "control")
            await asyncio.to_thread(group.kill)
        except CgroupError as error:
            log.error("%s: %s", self.unit, error)
        reason = f"The monitor of {self.unit} is gone; what it watched over was killed."
        self._tell(life.Exited(record.slot, boot_seconds(), lost=True), reason, ended=True)

    async def _listen(self, record: ProcessRecord, link: monitors.Link) -> None:
        slot = record.slot
        self._links[slot] = link
        async for event in link.events():
            now = boot_seconds()
            self._under_way(slot)
            match event:
                case monitors.Started(pid):
                    self._tell(life.Started(slot, pid, now))
                case monitors.Forked(code, signal):
                    self._tell(life.Exited(slot, now, code, signal))
                case monitors.MainPid(pid):
                    self._tell(life.MainFound(slot, pid, now))
                case monitors.Notify(text):
                    self._tell(_notified(slot, text, now))
                case monitors.Exited():
                    self._exited(slot, event)
                    return
        await self._gone(record)

    def _exited(self, slot: int, event: monitors.Exited) -> None:
        at = boot_seconds(event.at)
        reason = event.reason
        if event.signal == signals.SIGKILL and self.cgroup.child("payload").oom_kills():
            reason = "It was killed by the kernel, since it needed more memory than there is (MemoryMax=)."
        self._tell(life.Exited(slot, at, event.code, event.signal), reason, ended=True)

    async def forget(self, slot: int) -> None:
        """Let a monitor go whose end is on record: it exits, and its run directory goes."""
        link = self._links.pop(slot, None)
        task = self._tasks.pop(slot, None)
        record = self._records.pop(slot, None)
        if task is not None:
            await asyncio.wait([task])
        if link is not None:
            with contextlib.suppress(monitors.MonitorError):
                await link.forget()
        if record is not None:
            await asyncio.to_thread(shutil.rmtree, record.run_dir, ignore_errors=True)

    async def signal(self, slot: int, number: int) -> bool:
        """Signal the main process of a slot; False when it is not ours or not there any more."""
        link = self._links.get(slot)
        if link is None:
            return False
        try:
            await link.signal(number)
        except monitors.MonitorError as error:
            log.info("%s: %s", self.unit, error)
            return False
        return True

    def signal_group(self, number: int, *, payload: bool = True) -> None:
        """Signal every process of the unit, but no monitor; without `payload` what is in containers is left alone."""
        for name in ("payload", "control") if payload else ("control",):
            group = self.cgroup.child(name)
            if number == 9 and group.procs():
                group.kill()
            else:
                group.signal(number)

    def empty(self) -> bool:
        """Whether no process of the unit is left. One is found in the first hierarchy; only the last look, that finds
        none, goes through all."""
        places = zip(self.cgroup.child("payload").paths(), self.cgroup.child("control").paths(), strict=True)
        return not any(_occupied(place) for pair in places for place in pair)

    def remove_groups(self) -> None:
        """Remove the unit's control groups when nothing lives in them."""
        with contextlib.suppress(CgroupError):
            self.cgroup.remove()

    async def close(self) -> None:
        """Drop all connections; monitors and payloads live on."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for link in self._links.values():
            await link.close()
        self._links.clear()


def _occupied(group: Path) -> bool:
    """Whether a process is in a directory of control groups, or below."""
    for directory, _, _ in os.walk(group):
        with contextlib.suppress(OSError):
            if Path(directory, "cgroup.procs").read_text():
                return True
    return False


def _notified(slot: int, text: str, now: float) -> life.Notified:
    found = dict(line.partition("=")[::2] for line in text.splitlines())
    pid = found.get("MAINPID", "")
    return life.Notified(
        slot,
        now,
        ready=found.get("READY") == "1",
        stopping=found.get("STOPPING") == "1",
        main_pid=int(pid) if pid.isdigit() and Path("/proc", pid).exists() else None,
        status=found.get("STATUS"),
    )
