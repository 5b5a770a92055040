"""Docker lines of a unit, carried out: each is a step that lasts and ends as docker's client would. No docker runs.

What a container is, and how images come here, is the runner's affair (`agent/containers`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

from agent.cgroups import Cgroup, CgroupError
from agent.exec_context import ContextError, Outcome, environment, limits
from agent.isolation import ISOLATION_LABEL, Isolation
from agent.journal import write_note
from agent.processes import ENDING, Permit, Tell, boot_seconds
from agent.records import ProcessRecord
from agent.turns import Turns
from agent.units import life
from agent.units.command import Command, expand_variables
from agent.units.docker_line import DockerLineError, DockerStep, parse_docker_line
from agent.units.docker_options import ContainerOptions
from agent.units.errors import BadValue, UnitError
from agent.units.model import Unit
from agent.units.values import signal

CLIENT_ERROR = 125
"""docker's own exit code when it could not do what it was asked."""

log = logging.getLogger(__name__)

T = TypeVar("T")


class ContainerFailure(UnitError):
    """The runner could not do it. `code` is what docker's client would end with (125, 126, 127, or 1)."""

    def __init__(self, reason: str, code: int = CLIENT_ERROR) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True)
class UnitContainer:
    """A container that a unit asks for."""

    unit: str
    options: ContainerOptions
    """With every variable resolved."""
    log_dir: Path
    cgroup_parent: str
    """Where its control group goes, as an OCI spec names it; empty for the runner's own place."""


class ContainerRunner(Protocol):
    """What a supervisor needs of the containers of its machine. Failures are ContainerFailure."""

    async def fetch(self, image: str, policy: str) -> None:
        """Have an image here: `missing` pulls when it is not, `always` pulls, `never` fails."""
        ...

    async def create(self, wanted: UnitContainer) -> str:
        """Make a container, labelled with its unit; answer its id."""
        ...

    async def find(self, name: str) -> str | None:
        """The id behind a name or (part of an) id."""
        ...

    async def start(self, container: str) -> int:
        """Start it; answer its first process."""
        ...

    async def has_started(self, container: str) -> bool:
        """Whether it runs, or ran and ended; False for one that was only made."""
        ...

    async def wait(self, container: str) -> int:
        """Wait for its end (at once if it has ended) and answer its code."""
        ...

    async def stop(self, container: str, patience: float | None) -> None:
        """Its stop signal, then SIGKILL after `patience` seconds (None: its own)."""
        ...

    async def signal(self, container: str, number: int | None) -> None:
        """Send a signal, or its stop signal for None."""
        ...

    async def remove(self, container: str, *, force: bool, volumes: bool) -> None:
        """Remove it."""
        ...

    def isolated(self, unit: str, since: float) -> set[str]:
        """Ids of a unit's containers that their monitors ended after a time (in s since the epoch), since the cluster
        had not answered."""
        ...


class DockerSteps:
    """All docker lines of one unit that are under way."""

    def __init__(
        self,
        unit: str,
        cgroup: Cgroup,
        runner: ContainerRunner,
        tell: Tell,
        keep: Callable[[int, str, bool], Awaitable[None]],
        isolation: Isolation | None = None,
        permit: Permit | None = None,
        *,
        turns: Turns,
    ) -> None:
        """`keep` saves the container of a slot before it is started (True: it has no name, and stays when it
        ended), `isolation` is for the monitors of the unit's containers, `permit` is awaited before one starts."""
        self._isolation = isolation
        self._permit = permit
        self._turns = turns
        self.unit = unit
        self.cgroup = cgroup
        self._runner = runner
        self._tell = tell
        self._keep = keep
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._containers: dict[int, str] = {}
        self._held: dict[int, list[int | None]] = {}
        """Signals for containers that are being started, which could not have them yet."""

    @property
    def busy(self) -> bool:
        return any(not task.done() for task in self._tasks.values())

    def run(self, record: ProcessRecord, unit: Unit, command: Command, outcome: Outcome) -> None:
        """Carry a line out, or go on with it where an earlier fleetd left it."""
        work = self._work(record, unit, command, outcome)
        self._tasks[record.slot] = asyncio.create_task(work, name=f"{self.unit} #{record.slot} docker")

    async def _work(self, record: ProcessRecord, unit: Unit, command: Command, outcome: Outcome) -> None:
        slot = record.slot
        reason = ""
        try:
            env = environment(unit, outcome)
            words = (command.path, *expand_variables(command, env)[1:])
            step = parse_docker_line(words)
            if step is None:
                raise ContainerFailure(f"'{' '.join(words)}' is not a docker line that is understood.")
            code = await self._do(record, unit, step, env)
        except Exception as error:  # of whatever kind: a step that ends untold leaves its unit active for ever
            code = error.code if isinstance(error, ContainerFailure) else CLIENT_ERROR
            reason = str(error) or type(error).__name__
            if not isinstance(error, (ContainerFailure, DockerLineError, ContextError, CgroupError)):
                log.exception("%s: the docker step #%d failed", self.unit, slot)
            if not command.ignore_failure:
                with contextlib.suppress(OSError):  # the note is not worth more than the end: the disk may be full
                    await asyncio.to_thread(write_note, Path(record.log_dir), f"docker: {reason}")
        self._containers.pop(slot, None)
        self._tell(life.Exited(slot, boot_seconds(), code=code), reason, ended=True)

    async def _do(self, record: ProcessRecord, unit: Unit, step: DockerStep, env: Mapping[str, str]) -> int:
        if step.verb == "run":
            assert step.options is not None
            return await self._run(record, unit, step.options, env)
        if step.verb == "pull":
            await self._outside_timeout(record.slot, self._runner.fetch(step.targets[0], "always"))
            return 0
        code = 0
        for name in step.targets:
            container = await self._runner.find(name)
            if container is None:
                if step.verb == "rm" and step.force:
                    continue
                raise ContainerFailure(f"There is no container '{name}' on this machine.", 1)
            match step.verb:
                case "start":
                    again = record.container == container
                    if step.foreground and not again:
                        await self._keep(record.slot, container, False)
                    code = await self._start(record, unit, container, foreground=step.foreground, again=again)
                case "stop":
                    await self._runner.stop(container, step.timeout)
                case "kill":
                    await self._runner.signal(container, _number(step.signal or "KILL"))
                case _:
                    await self._runner.remove(container, force=step.force, volumes=step.volumes)
        return code

    async def _run(self, record: ProcessRecord, unit: Unit, options: ContainerOptions, env: Mapping[str, str]) -> int:
        container = record.container
        again = bool(container) and await self._runner.find(container) is not None
        if not again:
            if container and options.remove:
                raise ContainerFailure(f"The container {container[:12]} ended while nobody watched, and is removed.", 1)
            await self._outside_timeout(record.slot, self._runner.fetch(options.image, options.pull))
            parent = ""
            assert unit.service is not None
            if not options.detach:
                group = self.cgroup.child("payload")
                await asyncio.to_thread(group.make)
                await asyncio.to_thread(group.limit, limits(unit.service.resources))
                parent = group.oci_path
            options = _resolve(options, env)
            if self._isolation is not None:
                options = replace(options, labels=(*options.labels, (ISOLATION_LABEL, self._isolation.text())))
            wanted = UnitContainer(self.unit, options, Path(record.log_dir), parent)
            container = await self._runner.create(wanted)
            stays = not options.name and not options.remove and not options.detach
            await self._keep(record.slot, container, stays)
        code = await self._start(record, unit, container, foreground=not options.detach, again=again)
        if options.remove and not options.detach:
            await self._runner.remove(container, force=True, volumes=True)
        return code

    async def _start(self, record: ProcessRecord, unit: Unit, container: str, *, foreground: bool, again: bool) -> int:
        """Start a container, unless an earlier fleetd did (`again`), and stay with it."""
        slot = record.slot
        due = not again or not await self._runner.has_started(container)
        pid = 0
        held: list[int | None] = []
        if due:
            if self._permit is not None and record.phase not in ENDING:
                await self._outside_timeout(slot, self._permit(unit))
            turn = self._turns.take()
            end_turn = await (self._outside_timeout(slot, turn) if self._turns.taken else turn)
            self._containers[slot] = container
            self._held[slot] = held
            try:
                pid = await self._runner.start(container)
            finally:
                del self._held[slot]
                end_turn()
        self._containers[slot] = container
        if pid and foreground:
            self._tell(life.Started(slot, pid, boot_seconds()))
        for number in held:
            await self._signal(container, number)
        if not foreground:
            return 0
        return await self._runner.wait(container)

    async def _outside_timeout(self, slot: int, awaited: Awaitable[T]) -> T:
        """Wait for what does not count for the unit's timeout; a stop gives it up."""
        self._tell(life.Paused(slot, boot_seconds()))
        try:
            return await awaited
        finally:
            self._tell(life.Resumed(slot, boot_seconds()))

    async def signal(self, slot: int, number: int | None) -> bool:
        """Signal the container of a slot (None: its stop signal); a line without one is given up. False: not ours."""
        task = self._tasks.get(slot)
        if task is None or task.done():
            return False
        container = self._containers.get(slot)
        if container is None:
            task.cancel()
            self._tell(life.Exited(slot, boot_seconds(), signal=number or 15), "", ended=True)
            return True
        if slot in self._held:
            self._held[slot].append(number)
        else:
            await self._signal(container, number)
        return True

    async def _signal(self, container: str, number: int | None) -> None:
        try:
            await self._runner.signal(container, number)
        except ContainerFailure as error:
            log.info("%s: %s", self.unit, error)

    def slots(self) -> tuple[int, ...]:
        """Slots that are under way."""
        return tuple(slot for slot, task in self._tasks.items() if not task.done())

    def forget(self, slot: int) -> None:
        self._tasks.pop(slot, None)

    async def close(self) -> None:
        """Give up watching; containers live on."""
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())


def _number(name: str) -> int:
    try:
        return signal(name)
    except BadValue as error:
        raise ContainerFailure(f"{error.reason}.") from None


def _resolve(options: ContainerOptions, env: Mapping[str, str]) -> ContainerOptions:
    """Give every variable its value: from files first, then by flag, a bare name from the unit's environment."""
    found: dict[str, str] = {}
    for path in options.env_files:
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise ContainerFailure(f"--env-file {path} can't be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise ContainerFailure(f"--env-file {path} is not UTF-8: {error}.") from error
        for line in lines:
            if not line.strip() or line.startswith("#"):
                continue
            name, equals, value = line.partition("=")
            if equals or name in env:
                found[name] = value if equals else env[name]
    for name, given in options.env:
        if given is not None:
            found[name] = given
        elif name in env:
            found[name] = env[name]
    return replace(options, env=tuple(found.items()), env_files=())
