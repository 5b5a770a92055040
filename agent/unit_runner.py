"""One unit at work: events in, `lifecycle` decides, the record is saved, then its actions are carried out, in turn.

It knows nothing of placements or other units; the supervisor does.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from signal import SIGCONT

from agent import isolation, journal
from agent.cgroups import Cgroup
from agent.docker_steps import ContainerFailure, ContainerRunner, DockerSteps
from agent.exec_context import Outcome
from agent.hierarchies import Layout
from agent.interfaces import UnitState
from agent.processes import Processes, boot_seconds
from agent.records import ProcessRecord, RecordError, Records, UnitRecord
from agent.turns import Turns
from agent.units import life, lifecycle
from agent.units.command import Command
from agent.units.docker_line import DockerLineError, is_docker, parse_docker_line
from agent.units.model import Phase, Unit
from agent.units.names import Host
from agent.units.why import ending, why

EMPTY_POLL_S = 0.03
"""How often a unit that is being ended is looked at; v1 groups tell nobody when they are empty."""
QUEUE_LIMIT = 1000
"""A service's status texts beyond this many waiting events are dropped; nothing else is."""
SAVE_AGAIN_S = 10.0
"""How long after the disk refused a record it is tried again."""
RETRY_S = 1.0
"""How long after an error the unit's timer fires at the earliest, so that a lasting one is no busy loop."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Site:
    """Where the units of a machine live."""

    records: Records
    run_dir: Path
    journal_dir: Path
    boot: str
    host: Host
    layout: Layout
    cgroup_root: str
    containers: ContainerRunner
    page: Path | None = None
    """Where fleet-presence writes when the cluster answered last."""
    permit: Callable[[Unit], Awaitable[None]] | None = None
    """Returns when a unit with StopWhenIsolated= may start."""
    turns: Turns = field(default_factory=Turns)


async def drop_container(containers: ContainerRunner, container: str) -> None:
    """Remove a container that a run of a unit left; one that can't be removed stays, and is logged."""
    if container and await containers.find(container) is not None:
        try:
            await containers.remove(container, force=False, volumes=True)
        except (ContainerFailure, OSError) as error:
            log.warning("the container %s that a unit left can't be removed: %s", container[:12], error)


class UnitRunner:
    """Drives a unit of this machine. :meth:`feed` takes events; `changed` is called after each step."""

    def __init__(self, site: Site, record: UnitRecord, unit: Unit, changed: Callable[[UnitRunner], None]) -> None:
        self.site = site
        self.record = record
        self.unit = unit
        self.leaving = False
        self.desired_launched = False
        self.refusal = ""
        """Why the last wish to start it could not even be tried (a dependency)."""
        self.failure_told = record.since if record.state.sub == "failed" else 0.0
        """`since` of the failure for which OnFailure= was obeyed."""
        self._changed = changed
        cgroup = Cgroup(unit.name, layout=site.layout, root=site.cgroup_root)
        bound = isolation.of(unit, site.page)
        permit = self._permitted if site.permit and unit.fleet.stop_when_isolated is not None else None
        self._awaits_permit = False
        self._processes = Processes(unit.name, cgroup, self._tell, bound, permit, turns=site.turns)
        self._docker = DockerSteps(
            unit.name, cgroup, site.containers, self._tell, self._keep_container, bound, permit, turns=site.turns
        )
        self._queue: asyncio.Queue[tuple[life.Event, str, bool]] = asyncio.Queue()
        self._stepping = False
        self._timer: asyncio.TimerHandle | None = None
        self._emptying: asyncio.Task[None] | None = None
        self._saving = asyncio.Lock()
        self._saving_now: asyncio.Task[None] | None = None
        self._saving_again: asyncio.Task[None] | None = None
        self._worker = asyncio.create_task(self._work(), name=f"unit {unit.name}")

    @property
    def name(self) -> str:
        return self.unit.name

    @property
    def busy(self) -> bool:
        """Events wait for their turn, or one has it."""
        return self._stepping or not self._queue.empty()

    @property
    def state(self) -> life.State:
        return self.record.state

    def feed(self, event: life.Event, reason: str = "") -> None:
        """Queue an event; why it happens is saved with what comes of it."""
        self._tell(event, reason)

    def _tell(self, event: life.Event, reason: str = "", *, ended: bool = False) -> None:
        idle = isinstance(event, life.Notified) and not (event.ready or event.stopping or event.main_pid)
        if not idle or self._queue.qsize() < QUEUE_LIMIT:
            self._queue.put_nowait((event, reason, ended))

    async def _permitted(self, unit: Unit) -> None:
        assert self.site.permit is not None
        self._awaits_permit = True
        self._changed(self)
        try:
            await self.site.permit(unit)
        finally:
            self._awaits_permit = False
            self._changed(self)

    def status(self) -> UnitState:
        """What the cluster is told of it."""
        state = self.state
        if self._awaits_permit and state.active in ("active", "activating"):
            return UnitState(
                self.name,
                self.record.epoch,
                "loaded",
                "activating",
                "start",
                since=self.record.since,
                why=isolation.WAITING,
            )
        return UnitState(
            unit=self.name,
            epoch=self.record.epoch,
            load="loaded",
            active=state.active,
            sub=state.sub,
            result=state.result,
            exit_status=state.main_code if state.main_code is not None else state.main_signal,
            main_pid=state.main_pid,
            since=self.record.since,
            why=why(self.unit, state, self.refusal or self.record.reason, boot_seconds()),
        )

    async def set_epoch(self, epoch: int) -> None:
        """Take note of a newer decision about the same unit."""
        async with self._saving:
            self.record = replace(self.record, epoch=epoch)
            await self.save()
        self._changed(self)

    async def adopt(self) -> None:
        """Go on where an earlier fleetd stopped: processes by their monitors, docker lines, signals, the timer."""
        for process in self.record.processes:
            command = self._command(process.phase, process.index)
            if self._is_docker(command):
                self._docker.run(process, self.unit, command, self._outcome())
            elif await asyncio.to_thread(Path(process.run_dir).exists):
                self._processes.adopt(process)
            else:
                self._processes.run(process, self.unit, command, self._outcome())
        for slot in (self.state.main, self.state.control):
            if slot is not None and self.record.process(slot) is None:
                end = life.Exited(slot, boot_seconds(), unable=True)
                self._tell(end, "It could not be started before fleetd ended.", ended=True)
        try:
            for action in lifecycle.resume(self.unit, self.state):
                await self._act(action)
        except Exception as error:  # one unit that can't be ended must not keep fleetd from starting
            log.exception("%s: %s", self.name, error)
        self._arm()

    async def close(self) -> None:
        """Stop driving it. Its processes, containers and monitors go on; a later fleetd finds them."""
        if self._timer is not None:
            self._timer.cancel()
        tasks = [task for task in (self._worker, self._emptying, self._saving_again) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.wait([*tasks, *([self._saving_now] if self._saving_now else [])])
        await self._docker.close()
        await self._processes.close()

    async def remove(self) -> None:
        """Forget a unit at rest: its record, control groups and the container that it left go, its journal stays."""
        await self.close()
        await drop_container(self.site.containers, self.record.last_container)
        try:
            await asyncio.to_thread(self.site.records.remove, self.name)
        except OSError as error:  # a later fleetd finds it at rest, and wanted by nobody
            log.error("the record of %s can't be removed: %s", self.name, error)
        await asyncio.to_thread(self._processes.remove_groups)

    async def _work(self) -> None:
        while True:
            event, reason, ended = await self._queue.get()
            self._stepping = True
            pause = 0.0
            try:
                await self._take(event, reason, ended)
            except Exception as error:  # of whatever kind: the unit has to stay one that can be stopped
                log.exception("%s: %s", self.name, error)
                self.record = replace(self.record, reason=str(error) or type(error).__name__)
                pause = RETRY_S
            finally:
                self._stepping = False
            self._arm(pause)
            self._changed(self)

    async def _take(self, event: life.Event, reason: str, ended: bool) -> None:
        before = self.record
        state, actions = lifecycle.step(self.unit, before.state, event)
        said = reason or ending(self.unit, before.state, event)
        if isinstance(event, life.Start):
            self.refusal = ""
        async with self._saving:
            record = replace(self.record, state=state)
            if state.active != before.state.active:
                record = replace(record, since=time.time())
            if isinstance(event, life.Start) or (said and (before.state.result == "success" or not before.reason)):
                record = replace(record, reason=said)
            if isinstance(event, life.Exited) and ended:
                record = record.without(event.slot)
            runs: list[tuple[ProcessRecord, Command]] = []
            unable: list[tuple[life.Exited, OSError]] = []
            for action in actions:
                if isinstance(action, life.Run):
                    try:
                        process = await asyncio.to_thread(self._new_process, action)
                    except OSError as error:
                        unable.append((life.Exited(action.slot, boot_seconds(), unable=True), error))
                        continue
                    record = replace(record, processes=(*record.processes, process))
                    runs.append((process, self._command(action.phase, action.index)))
            if record != self.record:
                self.record = record
                await self.save()
        if isinstance(event, life.Exited) and ended:
            self._docker.forget(event.slot)
            await self._processes.forget(event.slot)
        for exited, failure in unable:
            log.error("%s: process #%d: %s", self.name, exited.slot, failure)
            self._tell(exited, f"Its journal can't be written: {failure}.", ended=True)
        for process, command in runs:
            place = self._docker if self._is_docker(command) else self._processes
            place.run(process, self.unit, command, self._outcome())
        for action in actions:
            await self._act(action)

    async def save(self) -> None:
        """Save the record. A disk that refuses it is no reason to leave the unit alone; it is tried again later, since
        the next fleetd would end what is in no record."""
        self._saving_now = asyncio.create_task(asyncio.to_thread(self.site.records.save, self.record))
        try:
            await asyncio.shield(self._saving_now)
        except RecordError as error:
            log.error("%s goes on unsaved: %s", self.name, error)
            if self._saving_again is None:
                self._saving_again = asyncio.create_task(self._save_again(), name=f"{self.name} unsaved")

    async def _save_again(self) -> None:
        await asyncio.sleep(SAVE_AGAIN_S)
        async with self._saving:
            self._saving_again = None
            await self.save()

    def _new_process(self, action: life.Run) -> ProcessRecord:
        used = frozenset(process.log_dir for process in self.record.processes)
        log_dir = journal.new_folder(self.site.journal_dir / self.name, action.phase, used)
        number = log_dir.name.partition("-")[0]
        run_dir = self.site.run_dir / f"{self.name}.{number}"
        return ProcessRecord(action.slot, action.role, action.phase, action.index, str(run_dir), str(log_dir))

    async def _keep_container(self, slot: int, container: str, stays: bool) -> None:
        """Save a docker line's container before it starts. One that `stays` when it ended takes the place of the one
        that the last run left."""
        process = self.record.process(slot)
        if process is None:
            return
        async with self._saving:
            kept = replace(process, container=container)
            processes = tuple(kept if one.slot == slot else one for one in self.record.processes)
            self.record = replace(self.record, processes=processes)
            old = ""
            if stays:
                old = self.record.last_container
                self.record = replace(self.record, last_container=container)
            await self.save()
        await drop_container(self.site.containers, old)

    def _command(self, phase: Phase, index: int) -> Command:
        assert self.unit.service is not None
        return self.unit.service.commands(phase)[index]

    @staticmethod
    def _is_docker(command: Command) -> bool:
        try:
            return is_docker(command.path) and parse_docker_line(command.words) is not None
        except DockerLineError:  # as one with variables in its flags may be; the step knows their values, and complains
            return True

    def _outcome(self) -> Outcome:
        state = self.state
        if state.main_code is None and state.main_signal is None:
            return Outcome(state.main_pid, "success" if state.sub in ("stop", "stop-post") else "")
        code = "exited" if state.main_code is not None else "killed"
        status = state.main_code if state.main_code is not None else state.main_signal
        return Outcome(state.main_pid, state.result, code, str(status))

    async def _act(self, action: life.Action) -> None:
        if not isinstance(action, life.Kill):
            return
        await self._processes.settle()
        docker = self._docker.slots()
        if action.signal != int(SIGCONT):
            own = self.unit.service is not None and action.signal == self.unit.service.kill_signal == 15
            for slot in docker:
                await self._docker.signal(slot, None if own else action.signal)
        if action.whole_group:
            await asyncio.to_thread(self._processes.signal_group, action.signal, payload=not docker)
        else:
            for number in (self.state.main, self.state.control):
                if number is not None and number not in docker:
                    await self._processes.signal(number, action.signal)
        if action.signal != int(SIGCONT) and (self._emptying is None or self._emptying.done()):
            self._emptying = asyncio.create_task(self._watch_empty(), name=f"{self.name} emptying")

    async def _watch_empty(self) -> None:
        while self._docker.busy or self._lives() or not await asyncio.to_thread(self._processes.empty):
            if self.state.active != "deactivating":
                return
            await asyncio.sleep(EMPTY_POLL_S)
        self._tell(life.Emptied(boot_seconds()))

    def _lives(self) -> bool:
        """Whether the end of its main or control process is not known yet: then there is nothing to look at."""
        return self.state.main is not None or self.state.control is not None

    def _arm(self, pause: float = 0.0) -> None:
        """Set the unit's one timer to the state's deadline, but not before `pause` seconds."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.state.deadline is not None:
            delay = max(pause, self.state.deadline - boot_seconds())
            self._timer = asyncio.get_running_loop().call_later(delay, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._tell(life.TimerFired(max(boot_seconds(), self.state.deadline or 0.0)))
